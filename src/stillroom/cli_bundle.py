"""bundle on the command line: the folder an app takes, or the form that the Android app takes."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from stillroom.errors import UsageError

Answer = tuple[str, dict[str, Any]]


def bundle_verb(options: argparse.Namespace) -> Answer:
    """Write a bundle of one of a run's artifacts and replay its golden vectors."""
    from stillroom.export.bundle import load_bundle, replay_goldens, write_bundle

    chosen = options.run / "artifacts" / options.artifact
    if not chosen.is_dir():
        there = sorted(path.name for path in (options.run / "artifacts").glob("*")) or ["none"]
        raise UsageError(f"{options.run} has no artifact {options.artifact}: there are {', '.join(there)}")
    if (options.out is None) == (options.into is None):
        raise UsageError("give either --out FOLDER or, with --for android, --into PROJECT")
    if options.into is not None and options.device != "android":
        raise UsageError(f"--into {options.into} needs --for android")
    name, student = options.run.resolve().name, options.run / "student"
    if options.device == "android":
        return _android(options, name, chosen, student)
    manifest = write_bundle(name, chosen, student, options.out)
    error = replay_goldens(load_bundle(options.out))
    return _line(options.out, manifest), {
        "folder": str(options.out),
        "golden_max_abs_error": error,
        "manifest": manifest,
    }


def _android(options: argparse.Namespace, name: str, chosen: Path, student: Path) -> Answer:
    from stillroom.export.android.bundle import assets_of, write_android_bundle
    from stillroom.export.bundle import write_bundle

    out = options.out if options.into is None else assets_of(options.into)
    with tempfile.TemporaryDirectory() as work:
        whole = Path(work) / "bundle"
        write_bundle(name, chosen, student, whole)
        manifest = write_android_bundle(whole, out)
    line = _line(out, manifest)
    if options.into is not None:
        line += f"\nnext: stillroom android build --project {options.into}, or Gradle's build"
    return line, {"path": str(out), "manifest": manifest}


def _line(out: Path, manifest: dict[str, Any]) -> str:
    size_bytes = sum(entry["size_bytes"] for entry in manifest["files"])
    return f"{out}   {size_bytes / 1e6:.1f} MB   {manifest['golden']['count']} golden vectors replayed"
