"""The command line of export, and of search, which exports many."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stillroom.cli import Answer


def export_model(options: argparse.Namespace) -> Answer:
    """Convert one model folder. Raises UsageError."""
    from stillroom.devices import ANYWHERE, DEVICES
    from stillroom.export.lint import in_words, lint
    from stillroom.export.options import ExportOptions
    from stillroom.export.targets import export, split_name

    device = DEVICES.get(options.device, ANYWHERE)
    target, scheme = split_name(options.format or device.format)
    wanted = ExportOptions(
        lengths=tuple(options.length),
        ios=options.ios,
        author=options.author,
        license=options.license,
        text_input=options.text_input,
        calibration=_calibration(options),
        ranges=options.ranges,
        rounding=options.rounding,
        keep=tuple(options.keep),
        portable=options.portable or device.portable,
        signed=device.signed,
    )
    artifact = export(options.model, target, scheme, options.out, wanted)
    findings = lint(artifact, options.library)
    facts = {**asdict(artifact), "folder": str(artifact.folder), "lint": [asdict(one) for one in findings]}
    lines = [
        f"{artifact.path}   {artifact.size_bytes / 1e6:.1f} MB   inputs {', '.join(artifact.task.inputs)}",
        *([_text_input_line(artifact.folder, artifact.size_bytes)] if options.text_input else []),
        *([artifact.proof] if artifact.proof != "run" else []),
        f"{'' if artifact.portable else 'not '}the same on every CPU: {artifact.portable_evidence['reason']}",
        "not compared with its source yet: stillroom run, or stillroom verify RUN, does that",
        "on a phone:" if findings else "on a phone: nothing found that would hurt",
        *([in_words(findings)] if findings else []),
    ]
    return "\n".join(lines), facts


def _text_input_line(folder: Path, without_bytes: int) -> str:
    from stillroom.export.text_input import FILE

    size_bytes = (folder / FILE).stat().st_size
    return (
        f"{folder / FILE}   {size_bytes / 1e6:.1f} MB, {(size_bytes - without_bytes) / 1e6:.2f} of them the "
        "tokenizer; the same answers to the golden texts; needs onnxruntime-extensions in the app"
    )


def _calibration(options: argparse.Namespace) -> Any:
    if options.calibration is None:
        return ()
    from stillroom.step_export import calibration_by
    from stillroom.text import Columns, read_rows

    rows = read_rows(options.calibration, Columns(options.text_column, "", options.pair_column))
    return calibration_by(options.model, rows, options.calibration_rows)


def search_files(options: argparse.Namespace) -> Answer:
    """One winner under a budget. Raises UsageError, and CheckFailed when nothing holds all limits."""
    from stillroom.export.search import Limits
    from stillroom.step_search import search_run

    def in_bytes(megabytes: float | None) -> float | None:
        return None if megabytes is None else megabytes * 1e6

    limits = Limits(
        size_bytes=in_bytes(options.max_size_mb),
        retention=options.min_retention,
        flip_rate=options.max_flips,
        p90_ms=options.max_p90_ms,
        rss_bytes=in_bytes(options.max_rss_mb),
    )
    return search_run(
        options.run,
        [name.strip() for name in options.targets.split(",")],
        limits,
        prefer=options.prefer,
        layers=options.layers,
        minutes=options.minutes,
        rows=options.rows,
        seed=options.seed,
        fresh=options.fresh,
    )
