"""What the Android app's benchmark screen wrote: read as untrusted input, shown as a table and as JSON."""

from __future__ import annotations

import functools
import importlib.resources
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema

from stillroom.benchmarks.statistics import latency
from stillroom.benchmarks.tables import Table, number, plain
from stillroom.errors import UsageError, shown
from stillroom.files import read_json

SCHEMA_VERSION = 1
MAX_APP_RESULT_BYTES = 2**20  # 10,000 samples take a fifth of it
MAX_FILES = 1000
THERMAL_WORDS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")


@dataclass(frozen=True)
class AppDevice:
    """The device as the app saw it. soc: None where Android does not tell it."""

    manufacturer: str
    model: str
    soc: str | None
    emulator: bool
    android_release: str
    android_sdk: int
    abi: str
    cores: int
    ram_bytes: int


@dataclass(frozen=True)
class AppResult:
    """One model file timed in the app on one device; docs/schemas/app-bench.schema.json has each field.

    samples_ms: raw, in order. thermal_status: 0 (none) to 6, None before Android 10. battery_*: None where
    it is not known.
    """

    app_name: str
    app_version: str
    runtime_name: str
    runtime_version: str
    target: str
    scheme: str
    sha256: str
    size_bytes: int
    device: AppDevice
    threads: int
    warmup: int
    tokens: int
    samples_ms: tuple[float, ...]
    load_ms: float
    first_ms: float
    pss_bytes: int
    thermal_status_before: int | None
    thermal_status_after: int | None
    battery_celsius_before: float | None
    battery_celsius_after: float | None
    battery_percent: float | None
    date: str


@functools.cache
def _validator() -> jsonschema.Draft202012Validator:
    text = importlib.resources.files("stillroom.schemas").joinpath("app-bench.schema.json").read_text("utf-8")
    return jsonschema.Draft202012Validator(json.loads(text))


def read_app_results(path: Path, artifact_folder: Path | None = None) -> AppResult:
    """Read one file of the app. artifact_folder: an artifact or bundle that must hold the timed model file.

    Raises UsageError, one line with the JSON path, when the file is missing, too large, no such document, of
    another schema version, or of another model file.
    """
    if not path.is_file():
        raise UsageError(f"no such file: {path}")
    try:
        document = read_json(path, MAX_APP_RESULT_BYTES)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    try:
        result = app_result_of(document)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    if artifact_folder is not None:
        check_same_file(result, artifact_folder)
    return result


def app_result_of(document: Any) -> AppResult:
    """A parsed document as AppResult. Raises UsageError with the JSON path of what does not fit."""
    version = document.get("schema_version") if isinstance(document, dict) else None
    if type(version) is int and version != SCHEMA_VERSION:
        raise UsageError(
            f"the app wrote schema_version {shown(version)}, this stillroom reads {SCHEMA_VERSION}: "
            "use the app and the stillroom of one release"
        )
    try:
        mismatch = jsonschema.exceptions.best_match(_validator().iter_errors(document))
    except RecursionError:  # brackets within brackets, deep enough to be read and too deep to be walked
        raise UsageError("no document of the app's benchmark screen: it is nested too deeply") from None
    if mismatch is not None:
        reason = "".join(letter if letter.isprintable() else "?" for letter in mismatch.message[:200])
        raise UsageError(f"does not fit the schema at {mismatch.json_path[:200]!a}: {reason!a}")
    samples = tuple(_finite(value, f"$.samples_ms[{at}]") for at, value in enumerate(document["samples_ms"]))
    try:
        datetime.fromisoformat(document["date"])
    except ValueError:
        raise UsageError(f"does not fit the schema at $.date: {document['date']} is no date") from None
    settings, artifact, device = document["settings"], document["artifact"], document["device"]
    if settings["runs"] != len(samples):
        raise UsageError(f"settings.runs is {settings['runs']}, but there are {len(samples)} samples_ms")

    def maybe(key: str) -> float | None:
        return None if document[key] is None else _finite(document[key], f"$.{key}")

    def status(key: str) -> int | None:
        return None if document[key] is None else int(document[key])

    known: dict[str, Any] = dict(device)
    for key in ("android_sdk", "cores", "ram_bytes"):
        known[key] = int(known[key])  # JSON Schema calls 4.0 an integer, too
    return AppResult(
        app_name=document["app"]["name"],
        app_version=document["app"]["version"],
        runtime_name=document["runtime"]["name"],
        runtime_version=document["runtime"]["version"],
        target=artifact["target"],
        scheme=artifact["scheme"],
        sha256=artifact["sha256"],
        size_bytes=int(artifact["size_bytes"]),
        device=AppDevice(**known),
        threads=int(settings["threads"]),
        warmup=int(settings["warmup"]),
        tokens=int(settings["tokens"]),
        samples_ms=samples,
        load_ms=_finite(document["load_ms"], "$.load_ms"),
        first_ms=_finite(document["first_ms"], "$.first_ms"),
        pss_bytes=int(document["pss_bytes"]),
        thermal_status_before=status("thermal_status_before"),
        thermal_status_after=status("thermal_status_after"),
        battery_celsius_before=maybe("battery_celsius_before"),
        battery_celsius_after=maybe("battery_celsius_after"),
        battery_percent=maybe("battery_percent"),
        date=document["date"],
    )


def _finite(value: Any, path: str) -> float:
    """A float; NaN passes every bound of a schema."""
    if not math.isfinite(value):
        raise UsageError(f"does not fit the schema at {path}: a finite number is needed")
    return float(value)


def check_same_file(result: AppResult, artifact_folder: Path) -> None:
    """Raise UsageError unless the app timed the model file of this artifact folder or bundle."""
    from stillroom.export.bundle import artifact_at

    artifact = artifact_at(artifact_folder)
    if artifact.sha256 != result.sha256:
        raise UsageError(
            f"the app timed a file with sha256 {result.sha256[:12]}..., {artifact.path} has "
            f"{artifact.sha256[:12]}...: bundle this artifact into the app and measure again"
        )


def app_results(paths: Sequence[Path], folders: Sequence[Path] = ()) -> tuple[str, dict[str, Any]]:
    """Files of the app as a table for people and one JSON document, raw samples kept.

    folders: artifacts or bundles, one of which must hold the model file of each result; none for no check.
    Raises UsageError as read_app_results does, or when there are more than MAX_FILES files.
    """
    if len(paths) > MAX_FILES:
        raise UsageError(f"{len(paths)} files to import, at most {MAX_FILES} are read at a time")
    results = [read_app_results(path) for path in paths]
    if folders:
        from stillroom.export.bundle import artifact_at

        known = {artifact_at(folder).sha256: folder for folder in folders}
        for path, result in zip(paths, results, strict=True):
            if result.sha256 not in known:
                raise UsageError(
                    f"{path}: the app timed a file with sha256 {result.sha256[:12]}..., which is in none of "
                    f"{', '.join(map(str, folders))}"
                )
    documents = [app_document(result) for result in results]
    table = plain(app_table(documents))
    if any(result.device.emulator for result in results):
        table += "\nAn emulator's times say nothing about a phone: they are left out."
    return table, {"app_results": documents}


def app_document(result: AppResult) -> dict[str, Any]:
    """A result as JSON, with percentiles and their 95 % intervals; latency_ms is null on an emulator."""
    values = {**asdict(result), "samples_ms": list(result.samples_ms)}
    measured = None if result.device.emulator else latency(result.samples_ms, processes=1)
    return {**values, "runs": len(result.samples_ms), "latency_ms": measured}


def app_table(documents: Sequence[dict[str, Any]]) -> Table:
    """One line per imported result (app_document); 1 MB is 1e6 bytes."""
    header = ("device", "file", "tokens", "threads", "runs", "p50, ms", "p90, ms", "p99, ms", "load, ms")
    more = ("first, ms", "PSS, MB", "thermal", "battery, °C")
    return Table((*header, *more), tuple(_cells(document) for document in documents), 2)


def _cells(document: dict[str, Any]) -> tuple[str, ...]:
    device, found = document["device"], document["latency_ms"] or {}
    name = f"{device['manufacturer']} {device['model']}"
    timed = not device["emulator"]
    return (
        f"{name} (emulator)" if device["emulator"] else name,
        f"{document['target']} {document['scheme']} {document['sha256'][:8]}",
        str(document["tokens"]),
        str(document["threads"]),
        str(document["runs"]),
        *(number(found.get(key), 2) for key in ("p50", "p90", "p99")),
        number(document["load_ms"] if timed else None, 0),
        number(document["first_ms"] if timed else None, 1),
        number(document["pss_bytes"], 0, 1e-6),
        _change(_thermal(document["thermal_status_before"]), _thermal(document["thermal_status_after"])),
        _change(number(document["battery_celsius_before"], 1), number(document["battery_celsius_after"], 1)),
    )


def _thermal(status: int | None) -> str:
    return number(None, 0) if status is None else THERMAL_WORDS[status]


def _change(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"
