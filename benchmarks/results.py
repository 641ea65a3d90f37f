"""The results document: how a row is put together, and a check of the whole against its schema."""

from __future__ import annotations

import functools
import importlib.resources
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import jsonschema
import numpy as np
import referencing

from stillroom.benchmarks.measure import Measurement
from stillroom.benchmarks.statistics import latency
from stillroom.errors import UsageError
from stillroom.kinds import kind_of

SCHEMA_VERSION = 3
BENCH_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class RowFacts:
    """What is known of a model or file before it is timed; the schema describes each field."""

    name: str
    role: str
    source: str | None
    target: str
    scheme: str
    parameters: int
    size_bytes: int
    scores: dict[str, float]
    flip_rate: float | None
    max_abs_error: float | None
    quality: dict[str, Any] | None = None


def result_row(
    facts: RowFacts, metric: str, teacher_score: float, measurement: Measurement | None
) -> dict[str, Any]:
    """One row of a results document; without a measurement its timing fields are null.

    metric: the score that retention is measured in. Raises UsageError when the teacher's is not above 0
    (retention is a share of it) or the measurement belongs to another row.
    """
    if not teacher_score > 0:
        raise UsageError(f"the teacher's {metric} is {teacher_score}: nothing can be retained of it")
    row = {**asdict(facts), "retention": facts.scores[metric] / teacher_score}
    if measurement is not None and measurement.name != facts.name:
        raise UsageError(f"the measurement is of {measurement.name!r}, the row is {facts.name!r}")
    return {**row, **timing_fields(measurement)}


def timing_fields(measurement: Measurement | None) -> dict[str, Any]:
    """What a row says of time and memory; without a measurement all null, and by_length empty."""
    if measurement is None:
        unmeasured = (
            "cold_load_ms first_ms evaluation_pass_ms evaluation_samples_ms latency_ms length samples_ms "
            "cpu_ms runtime_bytes peak_rss_bytes baseline_rss_bytes "
            "load_samples_ms import_samples_ms first_samples_ms page_cache"
        )
        return {**dict.fromkeys(unmeasured.split()), "by_length": []}
    by_length = [
        {
            "length": length,
            "latency_ms": latency(samples, len(measurement.load_samples_ms)),
            "samples_ms": list(samples),
            "cpu_ms": float(np.median(measurement.cpu_ms[length])),
        }
        for length, samples in sorted(measurement.samples_ms.items())
    ]
    return {
        "cold_load_ms": float(np.median(measurement.load_samples_ms)),
        "first_ms": float(np.median(measurement.first_samples_ms)),
        "evaluation_pass_ms": sum(measurement.evaluation_samples_ms) or None,
        "evaluation_samples_ms": list(measurement.evaluation_samples_ms) or None,
        **by_length[-1],  # length, latency_ms, samples_ms and cpu_ms at the longest
        "by_length": by_length,
        "runtime_bytes": measurement.runtime_bytes,
        "peak_rss_bytes": max(measurement.peak_rss_bytes),
        "baseline_rss_bytes": int(np.median(measurement.baseline_rss_bytes)),
        "load_samples_ms": list(measurement.load_samples_ms),
        "import_samples_ms": list(measurement.import_samples_ms),
        "first_samples_ms": list(measurement.first_samples_ms),
        "page_cache": measurement.page_cache,
    }


def all_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Models, then artifacts."""
    return [*results["models"], *results["artifacts"]]


def metric_of(results: dict[str, Any]) -> str:
    """The score that counts in these results: its key in a row's scores."""
    return kind_of(results["task"]["kind"]).metric


@functools.cache
def _validator(name: str) -> jsonschema.Draft202012Validator:
    folder = importlib.resources.files("stillroom.schemas")
    schemas = {
        f"{stem}.schema.json": json.loads(folder.joinpath(f"{stem}.schema.json").read_text("utf-8"))
        for stem in ("results", "bench")
    }
    registry = referencing.Registry().with_resources(
        (key, referencing.Resource.from_contents(schema)) for key, schema in schemas.items()
    )
    return jsonschema.Draft202012Validator(schemas[f"{name}.schema.json"], registry=registry)


def validate_results(results: Any) -> None:
    """Check a results document against docs/schemas/results.schema.json and its own references.

    Raises UsageError with the JSON path of what is wrong, or with both versions when the document is of
    another schema version.
    """
    _check_rows(_validated(results, "results", SCHEMA_VERSION, "run the recipe again"))


def validate_bench(document: Any) -> None:
    """Check a bench document against docs/schemas/bench.schema.json. Raises as validate_results does."""
    _validated(document, "bench", BENCH_SCHEMA_VERSION, "run the bench again")


def _validated(document: Any, name: str, wanted: int, instead: str) -> dict[str, Any]:
    """The document as a reader of its file will see it: tuples are arrays."""
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version != wanted:
        raise UsageError(
            f"{name} have schema_version {version}, this stillroom reads {wanted}: "
            f"{instead}, or use the stillroom that wrote them"
        )
    try:
        read: dict[str, Any] = json.loads(json.dumps(document))
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} are not JSON: {error}") from None
    mismatch = jsonschema.exceptions.best_match(_validator(name).iter_errors(read))
    if mismatch is not None:
        raise UsageError(f"{name} do not fit the schema at {mismatch.json_path}: {mismatch.message[:300]}")
    for path in _not_finite(read, "$"):  # JSON Schema calls NaN a number, JSON does not
        raise UsageError(f"{name} do not fit the schema at {path}: a finite number is needed")
    return read


def _not_finite(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield path
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _not_finite(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _not_finite(inner, f"{path}[{index}]")


def _check_rows(results: dict[str, Any]) -> None:
    """What a schema cannot say: names are unique, sources exist, samples divide into the processes."""
    seen: set[str] = set()
    names = {row["name"] for row in all_rows(results)}
    wanted = list(kind_of(results["task"]["kind"]).scores)
    for section in ("models", "artifacts"):
        for index, row in enumerate(results[section]):
            path = f"$.{section}[{index}]"
            if row["name"] in seen:
                raise UsageError(f"results at {path}.name: {row['name']!r} is the name of an earlier row")
            seen.add(row["name"])
            if row["source"] is not None and row["source"] not in names - {row["name"]}:
                raise UsageError(f"results at {path}.source: there is no other row {row['source']!r}")
            if sorted(row["scores"]) != sorted(wanted):
                raise UsageError(f"results at {path}.scores: expected {', '.join(wanted)}")
            processes = len(row["load_samples_ms"] or [None])
            for entry in row["by_length"]:
                if len(entry["samples_ms"]) % processes:
                    raise UsageError(
                        f"results at {path}: {len(entry['samples_ms'])} samples at length "
                        f"{entry['length']} are not the same number from each of {processes} processes"
                    )
            if row["evaluation_pass_ms"] is not None and not results["workload"]["evaluation_rows"]:
                raise UsageError(f"results at {path}.evaluation_pass_ms: the workload has no rows for it")
            passed = row["evaluation_samples_ms"]
            if passed is not None and len(passed) != results["workload"]["evaluation_rows"]:
                raise UsageError(f"results at {path}.evaluation_samples_ms: not one per row of the workload")
            if row["length"] not in (None, max(results["workload"]["lengths"])):
                raise UsageError(f"results at {path}.length: not the longest of the workload's lengths")
            longest = max(row["by_length"], key=lambda entry: entry["length"], default=None)
            for field in ("length", "latency_ms", "samples_ms", "cpu_ms"):
                if row[field] != (longest[field] if longest else None):
                    raise UsageError(f"results at {path}.{field}: not that of the longest entry in by_length")
