"""How much of its teacher a student of every row keeps: python docs/experiments/full_recipe.py --out OUT

For each seed one `stillroom distill full`, whose student has half of the teacher's layers, and from the same
data and teacher students of other depths (--layers). Each is scored on the recipe's test and validation rows.
Prints a table of means and spreads over the seeds and the loss of every epoch; OUT/full.json has every
number, the machine, the versions and the date. A second call goes on where one stopped. About 45 minutes a
seed on one core.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from branches import distilled

from stillroom.benchmarks.machine import describe_machine
from stillroom.benchmarks.seeds import figure, mean_and_spread
from stillroom.files import write_json

SPLITS = ("test", "validation")


def student_of(seed: int, out: Path, layers: str, more: list[str]) -> dict[str, Any]:
    """Facts of the teacher and of a student of so many layers; data and teacher are those of "half"."""
    half = out / f"full-{seed}"
    run = half if layers == "half" else out / f"full-{seed}-{layers}"
    options = ["--set", f"student.layers={layers}", *(word for one in more for word in ("--set", one))]
    return {
        step: {
            **{split: record["facts"][split]["accuracy"] for split in SPLITS},
            "parameters": record["facts"]["parameters"],
            "seconds": record["seconds"],
            "training": record["facts"]["training"],
        }
        for step, record in distilled("full", seed, run, half, options).items()
    }


def line(name: str, models: list[dict[str, Any]], teachers: list[dict[str, Any]]) -> str:
    """A line of the table: accuracy, and the part of the same seed's teacher that is kept."""
    cells = [f"{models[0]['parameters'] / 1e6:.1f}"]
    for split in SPLITS:
        pairs = list(zip(models, teachers, strict=True))
        cells.append(mean_and_spread(figure([model[split] for model in models]), 2, 100))
        kept = [model[split] / teacher[split] for model, teacher in pairs]
        cells.append("" if models is teachers else mean_and_spread(figure(kept), 2, 100))
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Run what is missing, print the table, write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs and full.json")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--layers", nargs="+", default=["2"], help='beside "half" (default: 2)')
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every run")
    options = parser.parse_args()
    runs = {
        layers: {seed: student_of(seed, options.out, layers, options.set) for seed in options.seeds}
        for layers in ("half", *options.layers)
    }
    machine = describe_machine(torch.get_num_threads())
    write_json(options.out / "full.json", {"changed": options.set, "runs": runs, "machine": machine})
    print("| | parameters, M | test accuracy, % | kept, % | validation accuracy, % | kept, % |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    teachers = [found["teacher"] for found in runs["half"].values()]
    print(line("teacher", teachers, teachers))
    for layers, seeds in runs.items():
        students = [found["student"] for found in seeds.values()]
        print(line(f"student, {layers} of the layers", students, teachers))
    print("\nMean loss of each epoch, one line a seed:\n")
    for layers, seeds in runs.items():
        for seed, found in seeds.items():
            losses = " ".join(f"{loss:.3f}" for loss in found["student"]["training"]["epoch_losses"])
            print(f"    {layers} of the layers, seed {seed}: {losses}")
    print(f"\n{machine['date'][:10]}, {machine['cpu']}, torch {machine['versions']['torch']}")


if __name__ == "__main__":
    main()
