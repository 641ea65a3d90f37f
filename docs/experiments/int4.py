"""What better rounding is worth in 4 bits: python docs/experiments/int4.py RUN [--out int4.json]

RUN: a finished folder of `stillroom run` or `stillroom distill`. Its student is exported in every cell with
4-bit weights or a palette, rounded to nearest by the target's own tool and by GPTQ on rows it was trained on,
and each file answers the test and the validation split, and those training rows that it was not rounded by,
row by row. Prints flips against the fp32 student, the mean squared error of the logits, the change of
accuracy, and size. Each file in a process of its own.
OUT keeps what it has of cells that are not asked for.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.apart import apart
from stillroom.benchmarks.machine import describe_machine
from stillroom.export.options import ExportOptions
from stillroom.export.targets import export, load_predictor, open_artifact, split_name
from stillroom.extras import version_of
from stillroom.files import read_json, write_json
from stillroom.observe import calibration_of
from stillroom.progress import progress_bar
from stillroom.step_data import encode
from stillroom.steps import Run
from stillroom.student import load_student
from stillroom.tokens import Tokens, padded_inputs, some_rows, spread_rows

CELLS = ("onnx-int4", "executorch-int4", "coreml-int4", "coreml-palette4", "coreml-palette6")
SPLITS = ("test", "validation", "train")
THREADS = 2
Answers = dict[str, np.ndarray]  # split -> logits [rows, labels]


def tokens_of(run: Path, split: str, rows: int) -> Tokens:
    """A split as the student reads it; of the training rows those that GPTQ has not seen."""
    student = load_student(run / "student")
    tokens = encode(Run(run), student.folder, student.task, split)[0]
    if split != "train":
        return tokens
    return some_rows(tokens, np.setdiff1d(np.arange(len(tokens)), spread_rows(len(tokens), rows)))


def answers_of(run: Path, predict: Any, name: str, rows: int) -> Answers:
    """What a model answers to each row alone, without padding."""
    inputs, found = load_student(run / "student").task.inputs, {}
    for split in SPLITS:
        tokens = tokens_of(run, split, rows)
        logits = []
        with progress_bar(len(tokens), f"{name}, {split}", "row") as bar:
            for row in range(len(tokens)):
                logits.append(predict(*padded_inputs(tokens, np.array([row]), inputs).values()))
                bar.update(1)
        found[split] = np.concatenate(logits)
    return found


def source_answers(run: Path, rows: int) -> tuple[Answers, Answers]:
    """The fp32 student's logits and the labels of the rows, by split."""
    labels = {split: np.asarray(tokens_of(run, split, rows).labels) for split in SPLITS}
    predict = load_predictor("torch", run / "student", THREADS)
    return answers_of(run, predict, "fp32", rows), labels


def file_answers(run: Path, cell: str, rounding: str, rows: int) -> tuple[Answers, dict[str, Any]]:
    """Export the student and ask the file. rows: of the training split, for GPTQ."""
    student = load_student(run / "student")
    tokens = encode(Run(run), student.folder, student.task, "train")[0]
    options = ExportOptions(calibration=calibration_of(tokens, student.task.inputs, rows), rounding=rounding)
    with tempfile.TemporaryDirectory() as scratch:
        begun = time.perf_counter()
        made = export(student.folder, *split_name(cell), Path(scratch) / cell, options)
        seconds = time.perf_counter() - begun
        found = answers_of(run, open_artifact(made, THREADS), f"{cell}, {rounding}", rows)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (peak,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    facts = {"size_bytes": made.size_bytes, "seconds": seconds, "peak_rss_bytes": 1024 * int(peak.split()[1])}
    return found, {**facts, "proof": made.proof}


def compare(wanted: np.ndarray, got: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Figures of one file on one split."""
    right = [float((logits.argmax(axis=1) == labels).mean()) for logits in (wanted, got)]
    flips = int((wanted.argmax(axis=1) != got.argmax(axis=1)).sum())
    error = float(np.square(got.astype(np.float64) - wanted).mean())
    return {
        "rows": len(got), "flips": flips, "flip_rate": flips / len(got), "mean_squared_error": error,
        "accuracy": right[1], "accuracy_change": right[1] - right[0],
    }  # fmt: skip


def main() -> None:
    """Print a table and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("int4.json"))
    parser.add_argument("--rows", type=int, default=512, help="training rows to round by")
    parser.add_argument("--cell", action="append", choices=CELLS, help="only these; repeatable")
    options = parser.parse_args()
    ((wanted, labels),) = apart(source_answers, [(options.run, options.rows)])
    asked = [(cell, way) for cell in options.cell or CELLS for way in ("nearest", "gptq")]
    calls = [(options.run, cell, way, options.rows) for cell, way in asked]
    kept = read_json(options.out)["files"] if options.out.is_file() else []
    found: list[dict[str, Any]] = [one for one in kept if (one["cell"], one["rounding"]) not in asked]
    for (cell, way), (got, facts) in zip(asked, apart(file_answers, calls), strict=True):
        splits = {split: compare(wanted[split], got[split], labels[split]) for split in SPLITS}
        found.append({"cell": cell, "rounding": way, **facts, **splits})
        versions = {name: version_of(name) for name in ("torch", "onnxruntime", "executorch", "coremltools")}
        document = {"calibration_rows": options.rows, "files": found, "versions": versions}
        write_json(options.out, {**document, "machine": describe_machine(THREADS)})
    print(
        "| file | rounding | flips, test | validation | train | squared error | accuracy, points | MB | s |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for one in found:
        flips = (f"{one[split]['flip_rate']:.2%} ({one[split]['flips']})" for split in SPLITS)
        print(
            f"| {one['cell']} | {one['rounding']} | {' | '.join(flips)} | "
            f"{one['test']['mean_squared_error']:.5f} | {100 * one['test']['accuracy_change']:+.2f} | "
            f"{one['size_bytes'] / 1e6:.1f} | {one['seconds']:.0f} |"
        )


if __name__ == "__main__":
    main()
