"""bench on the command line: what is asked for, the table, and the exit code of a file that failed."""

from __future__ import annotations

import argparse
from typing import Any

from stillroom.errors import CheckFailed
from stillroom.files import write_atomic, write_json
from stillroom.progress import say


def bench_folders(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Time folders as the options say: a table for people, raw samples as JSON, both in --out if given.

    Raises CheckFailed, after showing and writing them, when a file could not be measured.
    """
    from stillroom.benchmarks.bench import Plan, bench
    from stillroom.benchmarks.bench_tables import bench_lines

    plan = Plan(
        lengths=tuple(options.length) if options.length else None,
        rounds=options.rounds,
        samples=options.samples,
        threads=options.threads,
        text_file=options.text,
        sweeps=options.sweep,
        limits=options.limits,
        sustained_s=options.sustained,
        timeout_s=options.timeout,
    )
    document = bench(options.folders, plan, options.command)
    text = bench_lines(document)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        write_json(options.out / "bench.json", document)
        write_atomic(options.out / "bench.txt", f"{text}\n")
    failed = [row for row in document["rows"] if row["failure"]]
    if failed:
        say(text)
        raise CheckFailed(
            f"{len(failed)} of {len(document['rows'])} could not be measured, the first: "
            f"{failed[0]['name']}: {failed[0]['failure']}"
        )
    return text, document
