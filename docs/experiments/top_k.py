"""What do the top k lose? python docs/experiments/top_k.py --teacher MODEL --text FILES [--student MODEL]

Compares the soft loss of whole answers with that of the top k (distill/mlm_cache.py) at the hidden tokens of
held-out rows: for the teacher's own every other layer, where a student starts, and for a trained student if
one is given. Prints for each k the bytes that one answer takes, the teacher's mass that it holds at the
temperature, what its loss lacks of the whole one, and the cosine between the two gradients by the student's
logits, a mean over the tokens. The findings are in docs/log.md.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from stillroom.benchmarks.machine import describe_machine
from stillroom.distill.corpus import build_corpus
from stillroom.distill.layers import choose_layers, layer_list, student_from_teacher
from stillroom.distill.losses import soft_target_loss, top_k_of, top_k_soft_loss
from stillroom.distill.masked_lm import AtPositions, load_masked_lm, open_masked_source
from stillroom.distill.masking import IGNORED, mask_tokens

KS = (1, 8, 16, 32, 64, 128, 256, 1024)
BATCH = 8  # rows


def main() -> None:
    """Print a table for each student."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--teacher", type=Path, required=True, help="a masked-LM model folder")
    parser.add_argument("--text", type=Path, nargs="+", required=True)
    parser.add_argument("--student", type=Path)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=2.0)
    options = parser.parse_args()
    source = open_masked_source(options.teacher)
    teacher = load_masked_lm(source)
    kept = choose_layers("half", len(layer_list(teacher)), "every-other")
    students = {f"the teacher's layers {list(kept)}, untrained": student_from_teacher(teacher, kept)}
    if options.student:
        students["the trained student"] = load_masked_lm(open_masked_source(options.student))
    ks = [k for k in KS if k <= teacher.config.vocab_size]
    sums = {name: {k: np.zeros(4) for k in ks} for name in students}
    with tempfile.TemporaryDirectory() as scratch:
        length = min(options.max_length, source.longest)
        corpus = build_corpus(options.text, source.tokenizer_json, length, Path(scratch) / "corpus")
        special, count, tokens = corpus.special, min(options.rows, len(corpus.held_out)), 0
        for first in range(0, count, BATCH):
            rows = np.arange(first, min(first + BATCH, count))
            ids, _ = corpus.held_out.read(rows)
            inputs, labels = (
                torch.from_numpy(array)
                for array in mask_tokens(
                    ids, 0, 0, rows, special.ids, special.vocabulary_size, special.mask_id
                )
            )
            positions = torch.from_numpy(np.flatnonzero(labels.numpy() != IGNORED))
            tokens += len(positions)
            with torch.no_grad():
                wanted, _ = AtPositions(teacher.eval())(inputs, positions)
            for name, student in students.items():
                with torch.no_grad():
                    logits, _ = AtPositions(student.eval())(inputs, positions)
                for k in ks:
                    sums[name][k] += compared(logits, wanted, k, options.temperature) * len(positions)
    for name, of_k in sums.items():
        full = of_k[ks[0]][0] / tokens
        print(f"\n{name}: soft loss {full:.3f} (T = {options.temperature:g}, {tokens} hidden tokens)\n")
        print("| k | bytes | mass held, % | soft loss | lost, % of it | cosine of gradients |")
        print("| ---: | ---: | ---: | ---: | ---: | ---: |")
        for k in ks:
            _, part, mass, cosine = of_k[k] / tokens
            lost = 100 * (1 - part / full)
            print(f"| {k} | {6 * k + 4} | {100 * mass:.1f} | {part:.3f} | {lost:.1f} | {cosine:.4f} |")
    machine = describe_machine(torch.get_num_threads())
    print(f"\n{machine['date'][:10]}, {machine['cpu']}, torch {machine['versions']['torch']}, fp32")


def compared(logits: torch.Tensor, wanted: torch.Tensor, k: int, temperature: float) -> np.ndarray:
    """Whole loss, top-k loss as the cache keeps it, mass held, cosine of gradients: means over the tokens."""
    top, labels, rest = top_k_of(wanted, k, temperature)
    whole, part = (logits.clone().requires_grad_() for _ in range(2))
    full_loss = soft_target_loss(whole, wanted, temperature)
    part_loss = top_k_soft_loss(part, top.half(), labels, rest, temperature)
    for loss in (full_loss, part_loss):
        loss.backward()  # type: ignore[no-untyped-call]
    assert whole.grad is not None and part.grad is not None
    cosine = F.cosine_similarity(whole.grad, part.grad, dim=-1).mean()
    values = (full_loss, part_loss, top.exp().sum(dim=-1).mean(), cosine)
    return np.array([value.item() for value in values])


if __name__ == "__main__":
    main()
