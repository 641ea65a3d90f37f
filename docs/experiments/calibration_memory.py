"""How much memory does calibration take? python docs/experiments/calibration_memory.py [ROWS [OUT.json]]

The peak resident memory of a process that measures the ranges of static int8 for BERT-base's
architecture (random weights: memory does not depend on them) on ROWS (default 10,000) real texts of the
demo's data, by "mse" and by the default, "best", which reads the text three times and compares answers.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from peak import LENGTH, bert_base

from stillroom.benchmarks.machine import describe_machine
from stillroom.extras import resolve_source
from stillroom.files import write_json
from stillroom.recipe import load_recipe
from stillroom.text import Columns, read_rows


def texts(rows: int) -> list[Any]:
    """So many rows of the demo's own data."""
    data = load_recipe("demo").data
    columns = Columns(data.text_column, data.label_column, "", data.confidence_column)
    found = read_rows(resolve_source(data.source), columns, data.encoding)
    if len(found) < rows:
        raise SystemExit(f"{rows} rows: the demo's data has {len(found)}")
    return found[:rows]


def measured(folder: Path, rows: int, rule: str) -> dict[str, Any]:
    """Measure the ranges in this process, as stillroom export does; its peak memory at each stage."""
    from stillroom.export.calibration import simulated
    from stillroom.export.options import ExportOptions
    from stillroom.export.static_int8 import Numerics
    from stillroom.observe import calibration_of
    from stillroom.step_data import encode_for
    from stillroom.student import load_student

    task, start = load_student(folder).task, time.monotonic()
    batches = calibration_of(encode_for(folder, task, texts(rows)), task.inputs, rows)
    before = peak_bytes()
    simulated(folder, ExportOptions(calibration=batches, ranges=rule), Numerics(flat=True))
    return {
        "rows": rows,
        "rule": rule,
        "tokens": sum(batch[0].size for batch in batches),
        "before_bytes": before,
        "peak_bytes": peak_bytes(),
        "seconds": round(time.monotonic() - start, 1),
    }


def peak_bytes() -> int:
    """The most memory that this process has had resident."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(measured(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])))
        return
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        bert_base(folder)
        found = []
        for rule in ("mse", "best"):
            command = [sys.executable, __file__, "--child", str(folder), str(rows), rule]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
            one = found[-1]
            print(
                f"{rule}: {one['rows']:,} rows, {one['tokens']:,} tokens of at most {LENGTH} a row: peak RSS "
                f"{one['peak_bytes'] / 1e6:,.0f} MB ({one['before_bytes'] / 1e6:,.0f} before the model was "
                f"opened), {one['seconds']:.0f} s",
                flush=True,
            )
    if len(sys.argv) > 2:
        write_json(Path(sys.argv[2]), {"machine": describe_machine(2), "runs": found})


if __name__ == "__main__":
    main()
