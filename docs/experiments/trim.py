"""What cutting the vocabulary costs and saves: python docs/experiments/trim.py RUN... [--out trim.json]

RUN: finished folders of `stillroom distill` or `stillroom run` whose student has its whole vocabulary. Its
student's vocabulary is cut to what its training texts need, those without labels too, and both are scored on
the test split and exported. That is the student `--set student.vocabulary=trim` would have trained: with
frozen word embeddings the lesson is the same bit for bit (tests/distill/test_distill.py), as every token of
it is kept.
"""

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.benchmarks.machine import describe_machine
from stillroom.benchmarks.seeds import figure, mean_and_spread
from stillroom.distill.evaluate import predict_logits
from stillroom.distill.vocabulary import config_ids, trim_model, trim_tokenizer
from stillroom.export.targets import export
from stillroom.files import write_json
from stillroom.kinds import all_scores
from stillroom.numerics import compare_logits
from stillroom.splits import load_splits
from stillroom.step_data import encode_for
from stillroom.step_transfer import load_transfer
from stillroom.steps import Run
from stillroom.student import load_model, load_student, parameter_count, save_student


def cut_student(run: Path, folder: Path) -> dict[str, Any]:
    """Cut the run's student into folder/cut; figures of both."""
    student, splits = load_student(run / "student"), load_splits(run / "data")
    model = load_model(student.folder)
    tokenizer_json = (student.folder / "tokenizer.json").read_text(encoding="utf-8")
    rows = (*splits.train, *load_transfer(Run(run)))
    texts = [text for row in rows for text in (row.text, row.pair) if text is not None]
    trimmed = trim_tokenizer(tokenizer_json, texts, keep_ids=config_ids(model.config))
    small = trim_model(model, trimmed.source_ids)
    (folder / "cut").mkdir()
    save_student(folder / "cut", small, trimmed.tokenizer_json, student.task, {})
    logits: list[np.ndarray] = []
    found: dict[str, Any] = {"run": run.name}
    for name, place, it in (("whole", student.folder, model), ("cut", folder / "cut", small)):
        tokens = encode_for(place, student.task, splits.test)
        logits.append(predict_logits(it, tokens, student.task.inputs, f"{run.name}, {name}"))
        artifact = export(place, "onnx", "int8-dynamic", folder / f"{name}-int8")
        found[name] = {
            "vocabulary": int(it.config.vocab_size),
            "parameters": parameter_count(it),
            "fp32_bytes": (place / "model.safetensors").stat().st_size,
            "int8_bytes": artifact.size_bytes,
            **all_scores(student.task.kind, logits[-1], tokens.labels),
        }
    agreement = compare_logits(logits[0], logits[1], student.task.kind)
    return {**found, "flip_rate": agreement.flip_rate, "agreement": asdict(agreement)}


def main() -> None:
    """Print a table and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("trim.json"))
    options = parser.parse_args()
    found = []
    for run in options.runs:
        with tempfile.TemporaryDirectory() as scratch:
            found.append(cut_student(run, Path(scratch)))
    write_json(options.out, {"runs": found, "machine": describe_machine(1)})
    metric = load_student(options.runs[0] / "student").task.metric
    print("| | tokens | parameters, M | fp32, MB | int8 ONNX, MB | " + metric + ", % |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in ("whole", "cut"):
        rows = [one[name] for one in found]
        cells = [f"{np.mean([row['vocabulary'] for row in rows]):,.0f}"]
        for key in ("parameters", "fp32_bytes", "int8_bytes"):
            cells.append(f"{np.mean([row[key] for row in rows]) / 1e6:.1f}")
        cells.append(mean_and_spread(figure([row[metric] for row in rows]), 2, 100))
        print(f"| {name} vocabulary | {' | '.join(cells)} |")
    flips = mean_and_spread(figure([one["flip_rate"] for one in found]), 2, 100)
    print(f"\nTest rows whose label changes: {flips} %.")


if __name__ == "__main__":
    main()
