"""bench on the command line: here, on emulated arm64 cores, on a phone, or what the app has measured."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stillroom.errors import CheckFailed, UsageError
from stillroom.files import write_atomic, write_json
from stillroom.progress import say

Answer = tuple[str, dict[str, Any]]


def bench_folders(options: argparse.Namespace) -> Answer:
    """What the options ask for: a table for people, raw samples as JSON, both in --out if given.

    Raises CheckFailed, after showing and writing them, when a file was not measured or answers otherwise.
    """
    if options.imported and not options.estimate:
        return _written(options, *_imported(options), [])
    if not options.folders:
        raise UsageError("nothing to measure: name artifacts, bundles or model folders, or --import FILE")
    place, _, serial = options.target.partition(":")
    if place not in TARGETS or (serial and place != "adb"):
        raise UsageError(f"--target {options.target}: expected host, arm64, adb or adb:SERIAL")
    text, document, failures = TARGETS[place](options, serial)
    return _written(options, text, document, failures)


def _written(options: argparse.Namespace, text: str, document: dict[str, Any], failures: list[str]) -> Answer:
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        write_json(options.out / "bench.json", document)
        write_atomic(options.out / "bench.txt", f"{text}\n")
    if failures:
        say(text)
        raise CheckFailed(f"{len(failures)} not measured or not equal, the first: {failures[0]}")
    return text, document


def _host(options: argparse.Namespace, serial: str) -> tuple[str, dict[str, Any], list[str]]:
    from stillroom.benchmarks.bench import Plan, bench
    from stillroom.benchmarks.bench_tables import bench_lines

    plan = Plan(
        lengths=tuple(options.length) if options.length else None,
        rounds=options.rounds,
        samples=options.samples,
        threads=options.threads,
        text_file=options.text,
        sweeps=options.sweep,
        limits=options.limits or options.estimate,
        sustained_s=options.sustained,
        timeout_s=options.timeout,
    )
    document = bench(options.folders, plan, options.command)
    text = bench_lines(document)
    if options.estimate:
        text = f"{text}\n\n{_estimates(document, options)}"
    return text, document, [f"{row['name']}: {row['failure']}" for row in document["rows"] if row["failure"]]


def _estimates(document: dict[str, Any], options: argparse.Namespace) -> str:
    """A range for each class of phone, and how far it is off a measurement that --import brings."""
    from stillroom.benchmarks.phone.device_profiles import (
        cost_of,
        estimate_table,
        estimates,
        measured_of,
        read_counts,
        read_profiles,
    )
    from stillroom.benchmarks.tables import plain
    from stillroom.export.bundle import artifact_at

    costs = {name: cost_of(profile) for name, profile in document["limits"]["profiles"].items()}
    sha256s = {name: artifact_at(Path(name)).sha256 for name in costs}
    measured = measured_of(_imported(options)[1]["app_results"]) if options.imported else []
    tokens = max(document["workload"]["lengths"])
    profiles = read_profiles().values()
    counted = read_counts(options.instructions, profiles, tokens) if options.instructions else {}
    if options.instructions and not counted:
        raise UsageError(
            f"--instructions {options.instructions}: no count at {tokens} tokens, make one by "
            f"stillroom bench {' '.join(costs)} --target arm64 --length {tokens} --out FOLDER"
        )
    rows = estimates(profiles, costs, sha256s, measured, options.threads, counted)
    return f"estimates at {tokens} tokens, no phone was measured:\n\n{plain(estimate_table(rows))}"


def _arm64(options: argparse.Namespace, serial: str) -> tuple[str, dict[str, Any], list[str]]:
    from stillroom.benchmarks.phone.emulate import COUNTED_LENGTH, emulate
    from stillroom.benchmarks.phone.emulator_files import load_emulator

    emulator = load_emulator(options.tools)
    length = max(options.length or [COUNTED_LENGTH])
    text, document = emulate(options.folders, emulator, length=length, timeout_s=options.timeout)
    bad = [row for row in document["rows"] if row["status"] in ("failed", "differs")]
    return text, document, [f"{row['name']} on {row['core']}: {row['reason']}" for row in bad]


def _adb(options: argparse.Namespace, serial: str) -> tuple[str, dict[str, Any], list[str]]:
    from stillroom.benchmarks.phone.adb import AdbPlan, bench_adb
    from stillroom.benchmarks.phone.device_files import load_runner

    plan = AdbPlan(
        lengths=tuple(options.length or (64, 128)),
        rounds=options.rounds,
        samples=options.samples,
        threads=options.threads,
        cores=options.cores,
        timeout_s=options.timeout,
    )
    serials = [name for name in serial.split(",") if name]
    text, document = bench_adb(options.folders, serials, plan, load_runner(options.tools))
    failures = [str(device["error"]) for device in document["devices"] if device.get("error")]
    for device in document["devices"]:
        failures += [
            f"{row['name']}: {row['reason']}" for row in device.get("rows", []) if row["status"] == "failed"
        ]
    return text, document, failures


def _imported(options: argparse.Namespace) -> Answer:
    from stillroom.benchmarks.phone.app_results import app_results

    return app_results(options.imported, options.folders)


TARGETS: dict[str, Callable[[argparse.Namespace, str], tuple[str, dict[str, Any], list[str]]]] = {
    "host": _host,
    "arm64": _arm64,
    "adb": _adb,
}
