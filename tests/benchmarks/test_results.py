"""The schema of results.json, and the rows that go into it."""

from __future__ import annotations

import copy
import importlib.resources
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import pytest

from stillroom.benchmarks.measure import Measurement
from stillroom.benchmarks.results import SCHEMA_VERSION, RowFacts, result_row, validate_results
from stillroom.errors import UsageError

FACTS = RowFacts(
    "m", "student", "teacher", "onnx", "fp32", 1000, 4000, {"accuracy": 0.9, "macro_f1": 0.8}, 0.01, 1e-5
)
MEASUREMENT = Measurement(
    name="m",
    import_samples_ms=(70.0, 80.0),
    load_samples_ms=(10.0, 30.0),
    first_samples_ms=(5.0, 6.0),
    samples_ms={128: (3.0, 1.0, 2.0, 4.0), 16: (0.5, 0.5, 0.5, 0.5)},
    peak_rss_bytes=(100, 120),
    baseline_rss_bytes=(60, 63),
    page_cache="dropped",
    cpu_ms={128: (4.0, 6.0), 16: (0.9, 0.7)},
    runtime_bytes=30_000_000,
    evaluation_samples_ms=(4000.0, 200.0),
)


def schema() -> dict[str, Any]:
    text = importlib.resources.files("stillroom.schemas").joinpath("results.schema.json").read_text("utf-8")
    return dict(json.loads(text))


def test_a_row_derives_from_raw_samples() -> None:
    row = result_row(FACTS, "accuracy", 0.95, MEASUREMENT)
    assert row["retention"] == pytest.approx(0.9 / 0.95)
    assert (row["length"], row["samples_ms"]) == (128, [3.0, 1.0, 2.0, 4.0])
    low, high = row["latency_ms"].pop("intervals")["p50"]
    assert row["latency_ms"] == pytest.approx({"p50": 2.5, "p90": 3.7, "p95": 3.85, "p99": 3.97})
    assert 1.0 <= low < 2.5 < high <= 4.0
    assert (row["cpu_ms"], row["by_length"][0]["cpu_ms"]) == (5.0, 0.8)
    assert [entry["length"] for entry in row["by_length"]] == [16, 128]
    assert (row["cold_load_ms"], row["first_ms"], row["evaluation_pass_ms"]) == (20.0, 5.5, 4200.0)
    assert (row["peak_rss_bytes"], row["baseline_rss_bytes"]) == (120, 61)
    assert set(row) == set(schema()["$defs"]["row"]["required"])


def test_a_row_that_was_not_measured_has_nulls() -> None:
    row = result_row(FACTS, "accuracy", 0.95, None)
    assert set(row) == set(schema()["$defs"]["row"]["required"])
    assert row["latency_ms"] is row["evaluation_pass_ms"] is None
    assert row["by_length"] == [] and row["scores"]["accuracy"] == 0.9


def test_a_row_refuses_a_wrong_measurement_and_a_useless_teacher() -> None:
    with pytest.raises(UsageError, match="'m'"):
        result_row(RowFacts(**{**vars(FACTS), "name": "other"}), "accuracy", 0.95, MEASUREMENT)
    with pytest.raises(UsageError, match="accuracy is 0"):
        result_row(FACTS, "accuracy", 0.0, MEASUREMENT)


def test_the_sample_is_valid_also_after_json(sample_results: dict[str, Any]) -> None:
    validate_results(sample_results)
    validate_results(json.loads(json.dumps(sample_results)))
    sample_results["task"]["labels"] = ("negative", "positive")  # JSON makes an array of it
    validate_results(sample_results)


def test_unmeasured_rows_are_valid(sample_results: dict[str, Any]) -> None:
    facts = {key: sample_results["artifacts"][1][key] for key in vars(FACTS)}
    sample_results["artifacts"][1] = result_row(RowFacts(**facts), "accuracy", 0.95, None)
    validate_results(sample_results)


def test_another_version_is_named(sample_results: dict[str, Any]) -> None:
    sample_results["schema_version"] = SCHEMA_VERSION + 1
    del sample_results["models"]  # a newer form may differ in anything
    with pytest.raises(UsageError, match=rf"schema_version {SCHEMA_VERSION + 1}, .*reads {SCHEMA_VERSION}"):
        validate_results(sample_results)


def containers(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    if isinstance(value, dict):
        yield path, value
        for key, inner in value.items():
            yield from containers(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from containers(inner, (*path, index))


# Parts whose content is the recipe's, the split's or the user's to extend.
OPEN = ("recipe", "task", "data", "tolerances", "versions", "scores", "against", "flips_by_label", "profiles",
        "parity", "seconds")  # fmt: skip


def test_every_missing_or_extra_field_is_found(sample_results: dict[str, Any]) -> None:
    for section in ("models", "artifacts"):
        del sample_results[section][1:]
        del sample_results[section][0]["by_length"][:-1]
    validate_results(sample_results)
    tried = 0
    for path, container in containers(sample_results):
        if any(part in OPEN for part in path):
            continue
        for key in list(container):
            value = container.pop(key)
            with pytest.raises(UsageError):
                validate_results(sample_results)
            container[key] = value
            tried += 1
        container["surprise"] = 1
        with pytest.raises(UsageError, match="surprise"):
            validate_results(sample_results)
        del container["surprise"]
    assert tried > 70
    validate_results(sample_results)


def in_row(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda results: results["artifacts"][2].update(changes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (in_row(size_bytes=-1), r"\$\.artifacts\[2\]\.size_bytes"),
        (in_row(parameters=-1), r"\$\.artifacts\[2\]\.parameters"),
        (in_row(scores={"accuracy": 0.9}), r"\$\.artifacts\[2\]\.scores: expected accuracy, macro_f1"),
        (in_row(scores={"accuracy": None}), r"\$\.artifacts\[2\]\.scores\.accuracy"),
        (in_row(scores={"accuracy": math.nan}), r"\$\.artifacts\[2\]\.scores\.accuracy.*finite"),
        (in_row(scores={"macro_f1": "0.9"}), r"\$\.artifacts\[2\]\.scores\.macro_f1"),
        (in_row(retention=None), r"\$\.artifacts\[2\]\.retention"),
        (in_row(flip_rate=None), r"\$\.artifacts\[2\]\.flip_rate"),
        (in_row(max_abs_error=math.inf), r"\$\.artifacts\[2\]\.max_abs_error"),
        (in_row(cold_load_ms=-3.0), r"\$\.artifacts\[2\]\.cold_load_ms"),
        (in_row(evaluation_pass_ms=0), r"\$\.artifacts\[2\]\.evaluation_pass_ms"),
        (in_row(peak_rss_bytes=1.5), r"\$\.artifacts\[2\]\.peak_rss_bytes"),
        (in_row(page_cache="cold"), r"\$\.artifacts\[2\]\.page_cache"),
        (in_row(role="pupil"), r"\$\.artifacts\[2\]\.role"),
        (in_row(name="two\nlines"), r"\$\.artifacts\[2\]\.name"),
        (in_row(name="onnx-fp32"), r"\$\.artifacts\[2\]\.name.*earlier row"),
        (in_row(source="nobody"), r"\$\.artifacts\[2\]\.source.*nobody"),
        (in_row(source="onnx-int8-dynamic"), r"\$\.artifacts\[2\]\.source"),
        (in_row(by_length=[]), r"\$\.artifacts\[2\]\.length"),
        (in_row(length=64), r"\$\.artifacts\[2\]\.length"),
        (in_row(load_samples_ms=[1.0] * 7), r"\$\.artifacts\[2\].*7 processes"),
        (lambda results: results["models"].pop(0), r"\$\.models"),
        (lambda results: results["workload"].update(rounds=0), r"\$\.workload\.rounds"),
        (lambda results: results["workload"].update(evaluation_rows=0), r"evaluation_pass_ms.*no rows"),
        (lambda results: results["workload"].update(evaluation=[[1]]), r"\$\.workload.*evaluation"),
        (lambda results: results["machine"].update(cores=None), r"\$\.machine\.cores"),
        (lambda results: results["data"].update(test_rows=0), r"\$\.data\.test_rows"),
        (lambda results: results["notes"].append(3), r"\$\.notes\[0\]|\$\.notes\[1\]"),
        (lambda results: results.update(recipe={"name": {1, 2}}), "not JSON"),
    ],
)
def test_a_wrong_value_is_named_with_its_path(
    sample_results: dict[str, Any], change: Callable[[dict[str, Any]], None], said: str
) -> None:
    wrong = copy.deepcopy(sample_results)
    change(wrong)
    with pytest.raises(UsageError, match=said):
        validate_results(wrong)


@pytest.mark.parametrize("document", [None, [], "results", 3, {}])
def test_what_is_no_results_document_is_refused(document: Any) -> None:
    with pytest.raises(UsageError):
        validate_results(document)


def test_only_a_row_without_source_may_lack_a_comparison(sample_results: dict[str, Any]) -> None:
    teacher = sample_results["models"][0]
    teacher.update(source=None, flip_rate=None, max_abs_error=None)
    validate_results(sample_results)
    teacher.update(flip_rate=0.0, max_abs_error=0.0)
    validate_results(sample_results)


def test_every_field_of_the_schema_is_described() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())

    def undescribed(node: Any, path: str) -> Iterator[str]:
        if isinstance(node, dict):
            for name, field in node.get("properties", {}).items():
                if not {"description", "const"} & set(field):
                    yield f"{path}.{name}"
            for key, inner in node.items():
                if key not in ("if", "then", "contains"):
                    yield from undescribed(inner, f"{path}.{key}")

    assert list(undescribed(schema(), "$")) == []
