"""python -m stillroom.benchmarks.phone: exported files on emulated arm64 cores."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from stillroom.benchmarks.phone.device_files import DEFAULT_FOLDER
from stillroom.benchmarks.phone.emulate import CORES, emulate
from stillroom.benchmarks.phone.emulator_files import build_emulator, load_emulator
from stillroom.errors import StillroomError
from stillroom.progress import say


def main() -> int:
    """Fetch the tools, or run files; the exit code is 1 when a file is not ok."""
    parser = argparse.ArgumentParser(
        prog="python -m stillroom.benchmarks.phone",
        description="Run exported files on emulated arm64 cores: parity and instructions, never a time.",
        epilog="example: python -m stillroom.benchmarks.phone runs/demo/artifacts/onnx-* --cores a53,a76",
    )
    parser.add_argument("folders", type=Path, nargs="*", help="artifacts or bundles")
    parser.add_argument("--fetch", action="store_true", help="first fetch what is needed (700 MB)")
    parser.add_argument(
        "--tools", type=Path, default=DEFAULT_FOLDER, help="where it is (default: %(default)s)"
    )
    parser.add_argument("--cores", default=",".join(CORES), help="which (default: %(default)s)")
    parser.add_argument("--no-count", action="store_true", help="do not count instructions")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    options = parser.parse_args()
    if not options.folders and not options.fetch:
        parser.error("name an artifact or a bundle, or give --fetch")
    try:
        emulator = build_emulator(options.tools) if options.fetch else load_emulator(options.tools)
        if not options.folders:
            return 0
        cores = options.cores.split(",")
        text, document = emulate(options.folders, emulator, cores, count=not options.no_count)
    except StillroomError as error:
        say(str(error))
        return error.exit_code
    print(json.dumps(document, indent=2) if options.json else text)
    return int(any(row["status"] in ("differs", "failed") for row in document["rows"]))


if __name__ == "__main__":
    sys.exit(main())
