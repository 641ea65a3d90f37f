"""The app's JSON: what is read, what is refused in one line, and that nothing else ever comes of it."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.benchmarks.phone.app_results import (
    AppResult,
    app_document,
    app_result_of,
    app_results,
    check_same_file,
    read_app_results,
)
from stillroom.errors import UsageError

SCHEMA = Path(__file__).parents[3] / "docs" / "schemas" / "app-bench.schema.json"
SAMPLES = [4.1, 4.0, 4.2, 4.05, 9.5]


def valid_document() -> dict[str, Any]:
    """As the app writes it, with invented numbers."""
    return {
        "schema_version": 1,
        "app": {"name": "stillroom demo", "version": "0.1.0"},
        "runtime": {"name": "onnxruntime", "version": "1.32.0"},
        "artifact": {
            "target": "onnx",
            "scheme": "int8-dynamic",
            "sha256": "ab" * 32,
            "size_bytes": 17_530_346,
        },
        "device": {
            "manufacturer": "Acme",
            "model": "Phone 3",
            "soc": None,
            "emulator": False,
            "android_release": "14",
            "android_sdk": 34,
            "abi": "arm64-v8a",
            "cores": 8,
            "ram_bytes": 5_900_000_000,
        },
        "settings": {"threads": 4, "warmup": 5, "runs": len(SAMPLES), "tokens": 64},
        "samples_ms": list(SAMPLES),
        "load_ms": 60.5,
        "first_ms": 8.25,
        "pss_bytes": 95_000_000,
        "thermal_status_before": 0,
        "thermal_status_after": 1,
        "battery_celsius_before": 29.5,
        "battery_celsius_after": 31.0,
        "battery_percent": 80,
        "date": "2026-01-02T03:04:05Z",
    }


def write(folder: Path, document: Any) -> Path:
    path = folder / "bench.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def every_path(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, one in inner for found in every_path(one, (*path, key)))]


def changed(path: tuple[Any, ...], value: Any, *, drop: bool = False) -> Any:
    """The valid document with another value at one path, or without it."""
    document = valid_document()
    if not path:
        return value
    place: Any = document
    for key in path[:-1]:
        place = place[key]
    if drop:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return document


def test_the_schema_is_one_and_describes_every_field() -> None:
    schema = json.loads(SCHEMA.read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    objects = [schema, *(field for field in schema["properties"].values() if "properties" in field)]
    assert len(objects) == 6
    for found in objects:
        assert found["additionalProperties"] is False
        assert sorted(found["required"]) == sorted(found["properties"])
        assert all(field.get("description") for field in found["properties"].values())


def test_a_valid_file_is_read_whole(tmp_path: Path) -> None:
    result = read_app_results(write(tmp_path, valid_document()))
    assert result.samples_ms == tuple(SAMPLES)
    assert (result.device.model, result.device.soc, result.threads, result.tokens) == ("Phone 3", None, 4, 64)
    found = app_document(result)
    assert found["latency_ms"]["p50"] == pytest.approx(np.percentile(SAMPLES, 50))
    assert found["latency_ms"]["p99"] == pytest.approx(np.percentile(SAMPLES, 99))
    assert found["samples_ms"] == SAMPLES
    json.dumps(found, allow_nan=False)


def test_the_table_names_device_file_and_what_changed(tmp_path: Path) -> None:
    text, document = app_results([write(tmp_path, valid_document())])
    header, row = text.splitlines()
    assert "p50, ms" in header
    for seen in ("Acme Phone 3", "onnx int8-dynamic abababab", "4.10", "none → light", "29.5 → 31.0"):
        assert seen in row
    assert [found["sha256"] for found in document["app_results"]] == ["ab" * 32]


def test_an_emulators_times_are_left_out_by_word(tmp_path: Path) -> None:
    text, document = app_results([write(tmp_path, changed(("device", "emulator"), True))])
    assert "(emulator)" in text and "left out" in text
    assert not any(seen in text for seen in ("4.10", "60", "8.2"))
    assert document["app_results"][0]["latency_ms"] is None
    assert document["app_results"][0]["samples_ms"] == SAMPLES


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("schema_version",), 2, "schema_version 2, this stillroom reads 1"),
        (("schema_version",), True, "schema_version"),
        (("samples_ms", 0), math.nan, "samples_ms[0]: a finite number"),
        (("samples_ms", 0), math.inf, "samples_ms[0]"),
        (("samples_ms", 0), -1.0, "samples_ms[0]"),
        (("samples_ms", 0), 0, "samples_ms[0]"),
        (("samples_ms",), [], "samples_ms"),
        (("samples_ms",), [1.0] * 10_001, "samples_ms"),
        (("battery_percent",), math.nan, "battery_percent: a finite number"),
        (("settings", "runs"), 4, "settings.runs is 4, but there are 5"),
        (("device", "serial"), "R58M12345", "serial"),
        (("device", "model"), "a\nb", "device.model"),
        (("device", "model"), "\ud800", "device.model"),
        (("artifact", "sha256"), "AB" * 32, "artifact.sha256"),
        (("artifact", "sha256"), "ab" * 32 + "\n", "artifact.sha256"),
        (("thermal_status_after",), 7, "thermal_status_after"),
        (("pss_bytes",), 10**400, "pss_bytes"),
        (("date",), "2026-02-30T03:04:05Z", "date: 2026-02-30T03:04:05Z is no date"),
    ],
)
def test_what_does_not_fit_is_one_line_that_says_where(
    tmp_path: Path, path: tuple[Any, ...], value: Any, said: str
) -> None:
    file = write(tmp_path, changed(path, value))
    with pytest.raises(UsageError) as raised:
        read_app_results(file)
    assert said in str(raised.value) and str(file) in str(raised.value)
    assert str(raised.value).isprintable() and len(str(raised.value)) < 700


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"[" * 100_000, b"{", b"null", b"[]", b'{"schema_version": 1}', b"9" * 5000]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "bench.json"
    file.write_bytes(content)
    with pytest.raises(UsageError):
        read_app_results(file)


def test_files_are_bounded_and_must_be_files(tmp_path: Path) -> None:
    large = tmp_path / "large.json"
    large.write_bytes(b" " * (2**20 + 1))
    with pytest.raises(UsageError, match=r"1048577 bytes, at most 1048576"):
        read_app_results(large)
    for other in (tmp_path, tmp_path / "none", large / "below"):
        with pytest.raises(UsageError, match="no such file"):
            read_app_results(other)


def test_the_timed_file_must_be_the_one_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    from stillroom.export import bundle

    mine = types.SimpleNamespace(sha256="ab" * 32, path=tmp_path / "model.onnx")
    monkeypatch.setattr(bundle, "artifact_at", lambda folder: mine)
    file = write(tmp_path, valid_document())
    check_same_file(read_app_results(file, tmp_path), tmp_path)
    assert app_results([file], [tmp_path])[1]
    mine.sha256 = "cd" * 32
    with pytest.raises(UsageError, match=r"abababababab\.\.\.,.* has cdcdcdcdcdcd"):
        read_app_results(file, tmp_path)
    with pytest.raises(UsageError, match="in none of"):
        app_results([file], [tmp_path])


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(st.sampled_from(every_path(valid_document())), ANYTHING, st.booleans())
def test_any_mutation_is_a_result_or_a_usage_error(path: tuple[Any, ...], value: Any, drop: bool) -> None:
    document = changed(path, copy.deepcopy(value), drop=drop)
    try:
        result = app_result_of(document)
    except UsageError as error:
        assert str(error).isprintable()
    else:
        assert isinstance(result, AppResult)
        assert all(0 < ms < math.inf for ms in (*result.samples_ms, result.load_ms, result.first_ms))
        assert type(result.pss_bytes) is int and type(result.device.cores) is int


@given(st.binary(max_size=8), st.integers(0, 2000), st.integers(0, 8))
def test_any_damage_to_the_bytes_is_a_result_or_a_usage_error(
    tmp_path_factory: pytest.TempPathFactory, put: bytes, at: int, removed: int
) -> None:
    content = json.dumps(valid_document()).encode()
    file = tmp_path_factory.getbasetemp() / "damaged.json"
    file.write_bytes(content[:at] + put + content[at + removed :])
    try:
        assert isinstance(read_app_results(file), AppResult)
    except UsageError as error:
        assert "\n" not in str(error)
