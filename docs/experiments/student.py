"""Which recipe makes the best student? python docs/experiments/student.py runs/seed-0 runs/seed-1 runs/seed-2

Trains students of each run's teacher with other weights, layers and epochs, and scores them on rows that the
demo's cap left out of training: many more than the validation split has, and none of the test split's. Prints
accuracy in percent, mean over the runs, with the difference to the student without a teacher.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.distill.distill import StudentShape, distill_from_model, plain_student
from stillroom.distill.evaluate import predict_logits
from stillroom.distill.objective import LossWeights
from stillroom.distill.teacher import open_source, start_model
from stillroom.distill.train import TrainSettings
from stillroom.extras import resolve_source
from stillroom.recipe import load_recipe
from stillroom.scores import accuracy
from stillroom.splits import fold_key, load_splits, make_splits
from stillroom.student import load_model, load_student
from stillroom.text import Columns, read_rows
from stillroom.tokens import encode_rows, load_tokenizer, pad_id_of

SCORED_ROWS = 5000
EPOCHS = 3  # the demo's five were chosen by this table
RECIPE = load_recipe("demo")
WEIGHTS = LossWeights(
    RECIPE.student.temperature,
    RECIPE.student.soft_weight,
    RECIPE.student.hard_weight,
    RECIPE.student.cosine_weight,
)
# name -> changed loss weights, changed settings, layers
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any], str | tuple[int, ...]]] = {
    "as in demo.toml, but 3 epochs": ({}, {}, "half"),
    "5 epochs": ({}, {"epochs": 5}, "half"),
    "learning rate 3e-4": ({}, {"learning_rate": 3e-4}, "half"),
    "layers 0, 2, 4": ({}, {}, (0, 2, 4)),
    "layers 0, 1, 2": ({}, {}, (0, 1, 2)),
    "layers 1, 3, 5": ({}, {}, (1, 3, 5)),
    "temperature 4": ({"temperature": 4.0}, {}, "half"),
    "no hard labels": ({"hard": 0.0}, {}, "half"),
    "no cosine": ({"cosine": 0.0}, {}, "half"),
    "cosine 3": ({"cosine": 3.0}, {}, "half"),
}


def left_out_rows(run: Path) -> list[Any]:
    """Rows of the corpus that are in none of the run's splits, shuffled."""
    data = RECIPE.data
    columns = Columns(data.text_column, data.label_column, "", data.confidence_column)
    everything = make_splits(
        read_rows(resolve_source(data.source), columns, data.encoding), None, None,
        min_confidence=data.min_confidence, validation_fraction=data.validation_fraction,
        test_fraction=data.test_fraction, max_train_rows=0, seed=data.split_seed,
    )  # fmt: skip
    trained = {fold_key(row) for row in load_splits(run / "data").train}
    return [row for row in everything.train if fold_key(row) not in trained][:SCORED_ROWS]


def scores_of(run: Path) -> dict[str, float]:
    """Accuracy in percent of the run's teacher, of a student without it, and of every variant."""
    teacher = load_student(run / "teacher")
    task, seed, section = teacher.task, teacher.lineage["training"]["seed"], RECIPE.student
    tokenizer = load_tokenizer(teacher.folder, task.max_length)
    pad_id = pad_id_of(teacher.folder, tokenizer)
    train, scored = (
        encode_rows(tokenizer, rows, task, pad_id)
        for rows in (list(load_splits(run / "data").train), left_out_rows(run))
    )
    settings = TrainSettings(
        EPOCHS, section.learning_rate, section.batch_size, seed, section.freeze_word_embeddings
    )
    scores = {}

    def score(name: str, model: Any) -> None:
        scores[name] = 100 * accuracy(predict_logits(model, scored, task.inputs, name), scored.labels)
        print(f"{run.name} {name}: {scores[name]:.2f}", flush=True)

    score("teacher", load_model(teacher.folder))
    with tempfile.TemporaryDirectory() as scratch:
        source = resolve_source(RECIPE.teacher.source)
        start = start_model(open_source(source, task.labels, task.max_length, pair=False), seed)
        score("without a teacher", plain_student(start, train, task, settings, Path(scratch) / "plain")[0])
        for name, (weights, changed, layers) in VARIANTS.items():
            student, _ = distill_from_model(
                load_model(teacher.folder), train, task, replace(settings, **changed),
                Path(scratch) / "student", StudentShape(layers), replace(WEIGHTS, **weights),
            )  # fmt: skip
            score(name, student)
    return scores


def main(runs: list[Path]) -> None:
    found = [scores_of(run) for run in runs]
    print(f"\n| student | accuracy, % (n = {len(runs)}) | over no teacher, points |\n| --- | ---: | ---: |")
    for name in found[0]:
        gains = [scores[name] - scores["without a teacher"] for scores in found]
        mean = np.mean([scores[name] for scores in found])
        print(f"| {name} | {mean:.2f} | {np.mean(gains):+.2f} ({min(gains):+.2f} to {max(gains):+.2f}) |")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main([Path(argument) for argument in sys.argv[1:]])
