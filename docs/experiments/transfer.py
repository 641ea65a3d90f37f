"""Does text without labels help the demo's student? python docs/experiments/transfer.py --out runs/transfer

For each seed one teacher and several students of it: taught on the demo's labelled rows alone; with the other
rows of its corpus as unlabelled text (the rows of the splits are dropped by the step, labels are not read);
with an altered copy of every labelled row. More rows are more steps an epoch: --same-steps adds a student
that sees the labelled rows alone for as many epochs as make as many steps. Every student is scored on the
demo's test split. Prints mean and spread over the seeds; OUT/transfer.json has every number, the machine,
the versions and the date. A second call goes on where one stopped.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from branches import distilled

from stillroom.benchmarks.machine import describe_machine, usable_cores
from stillroom.files import read_json, write_json
from stillroom.recipe import load_recipe

RECIPE = load_recipe("demo")
TRANSFER_ROWS = 8000
LABELLED = "labelled rows alone"
# name -> folder, more options of `stillroom distill demo`
VARIANTS: dict[str, tuple[str, list[str]]] = {
    LABELLED: ("labelled", []),
    "and other rows of the corpus, without labels": (
        "transfer",
        ["--transfer", RECIPE.data.source, "--set", f"data.max_transfer_rows={TRANSFER_ROWS}"],
    ),
    "and an altered copy of each": ("augmented", ["--set", "student.augment_copies=1"]),
}
STEPS_FACTOR = (RECIPE.data.max_train_rows + TRANSFER_ROWS) // RECIPE.data.max_train_rows
SAME_STEPS = {
    f"labelled rows alone, {STEPS_FACTOR} times the epochs": (
        "longer",
        ["--set", f"student.epochs={RECIPE.student.epochs * STEPS_FACTOR}"],
    )
}


def students_of(
    seed: int, out: Path, variants: dict[str, tuple[str, list[str]]], more: list[str]
) -> dict[str, Any]:
    """What each variant's student scores, in percent, beside the one teacher of this seed."""
    found: dict[str, Any] = {}
    teacher = out / f"seed-{seed}-{VARIANTS[LABELLED][0]}"
    for name, (folder, options) in variants.items():
        run = out / f"seed-{seed}-{folder}"
        steps = distilled("demo", seed, run, teacher, [*options, *more])
        scores = {step: record["facts"]["test"] for step, record in steps.items()}
        found[name] = {
            "accuracy": 100 * scores["student"]["accuracy"],
            "macro_f1": 100 * scores["student"]["macro_f1"],
            "retention": 100 * scores["student"]["accuracy"] / scores["teacher"]["accuracy"],
            "teacher_accuracy": 100 * scores["teacher"]["accuracy"],
            "rows": steps["student"]["facts"]["training"]["rows"],
            "steps": steps["student"]["facts"]["training"]["steps"],
            "rows_without_labels": read_json(run / "student" / "stillroom.json")["lineage"][
                "rows_without_labels"
            ],
            "seconds": steps["student"]["seconds"],
        }
    teachers = {run["teacher_accuracy"] for run in found.values()}
    assert len(teachers) == 1, "the variants have other teachers"
    return found


def table(seeds: dict[int, dict[str, Any]]) -> str:
    """Mean (lowest to highest) over the seeds; a gain is over the same seed's labelled rows alone."""

    def spread(values: list[float], sign: str = "") -> str:
        return f"{np.mean(values):{sign}.2f} ({min(values):{sign}.2f} to {max(values):{sign}.2f})"

    lines = [
        f"| student | rows | steps | accuracy, % (n = {len(seeds)}) | gain, points | retention, % |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    teacher = [runs[LABELLED]["teacher_accuracy"] for runs in seeds.values()]
    lines.append(f"| teacher | | | {spread(teacher)} | | |")
    for name in next(iter(seeds.values())):
        runs = [found[name] for found in seeds.values()]
        accuracies, retentions = ([run[key] for run in runs] for key in ("accuracy", "retention"))
        gains = [found[name]["accuracy"] - found[LABELLED]["accuracy"] for found in seeds.values()]
        lines.append(
            f"| {name} | {runs[0]['rows']} | {runs[0]['steps']} | {spread(accuracies)} "
            f"| {spread(gains, '+')} | {spread(retentions)} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs and transfer.json")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--same-steps", action="store_true", help="also the labelled rows for as many steps")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every run")
    options = parser.parse_args()
    more = [word for assignment in options.set for word in ("--set", assignment)]
    variants = {**VARIANTS, **(SAME_STEPS if options.same_steps else {})}
    seeds = {seed: students_of(seed, options.out, variants, more) for seed in options.seeds}
    machine = describe_machine(usable_cores())
    facts = {
        "recipe": "demo",
        "changed": options.set,
        "variants": {name: words for name, (_, words) in variants.items()},
    }
    write_json(options.out / "transfer.json", {**facts, "seeds": seeds, "machine": machine})
    print(table(seeds))
    versions = ", ".join(f"{tool} {machine['versions'][tool]}" for tool in ("torch", "transformers"))
    print(f"\n{machine['date'][:10]}, {machine['cpu']}, {machine['cores']} cores, {versions}")


if __name__ == "__main__":
    main()
