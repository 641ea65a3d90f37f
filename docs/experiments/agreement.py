"""How alike do student and teacher answer? python docs/experiments/agreement.py RUN... [--out agreement.json]

RUN: finished folders of `stillroom distill`. Scores each run's teacher and student on its test and validation
rows together, none of which was trained on: accuracy, share of rows with the teacher's label, and the mean KL
divergence of the student's probabilities from the teacher's, whose error bar is far smaller than accuracy's.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stillroom.benchmarks.machine import describe_machine
from stillroom.distill.evaluate import predict_logits
from stillroom.files import read_json, write_json
from stillroom.splits import load_splits
from stillroom.step_data import encode_for
from stillroom.student import load_model, load_student
from stillroom.text import Row


def answers(run: Path, name: str, rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities [rows, labels] of a model of the run, float64, and the labels [rows]."""
    found = load_student(run / name)
    tokens = encode_for(found.folder, found.task, rows)
    logits = predict_logits(load_model(found.folder), tokens, found.task.inputs, f"{run.name}, {name}")
    return torch.from_numpy(logits).double().log_softmax(-1).numpy(), np.asarray(tokens.labels)


def compare(run: Path) -> dict[str, Any]:
    """Figures of one run; kl_error: the standard error of the mean over the rows."""
    splits = load_splits(run / "data")
    rows = (*splits.test, *splits.validation)
    (teacher, labels), (student, _) = (answers(run, name, rows) for name in ("teacher", "student"))
    kl = (np.exp(teacher) * (teacher - student)).sum(axis=1)
    accuracy = {
        name: float((answer.argmax(axis=1) == labels).mean())
        for name, answer in (("teacher", teacher), ("student", student))
    }
    return {
        "run": run.name,
        "rows": len(labels),
        "accuracy": accuracy,
        "kept": accuracy["student"] / accuracy["teacher"],
        "same_label": float((teacher.argmax(axis=1) == student.argmax(axis=1)).mean()),
        "kl": float(kl.mean()),
        "kl_error": float(kl.std() / np.sqrt(len(kl))),
        "training": read_json(run / ".stillroom" / "steps" / "student.json")["facts"]["training"],
    }


def main() -> None:
    """Print a table and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("agreement.json"))
    options = parser.parse_args()
    found = [compare(run) for run in options.runs]
    write_json(options.out, {"runs": found, "machine": describe_machine(torch.get_num_threads())})
    print("| run | teacher, % | student, % | kept, % | same label, % | KL, nats | loss of each epoch |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
    for one in found:
        cells = [
            f"{100 * value:.2f}" for value in (*one["accuracy"].values(), one["kept"], one["same_label"])
        ]
        cells.append(f"{one['kl']:.4f} ± {one['kl_error']:.4f}")
        cells.append(" ".join(f"{loss:.3f}" for loss in one["training"]["epoch_losses"]))
        print(f"| {one['run']} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
