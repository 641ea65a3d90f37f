"""The numerics an export may have, as frozen values: one table, one row per scheme."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """What an artifact must hold against its source, over real text (see export/verify.py).

    max_abs_error: logits. decided_flip_rate: share of rows whose label changes although the source's two
    best probabilities are apart.
    """

    max_abs_error: float
    decided_flip_rate: float


@dataclass(frozen=True)
class Scheme:
    """weight_bits: bits per weight. summary: one line for people. tolerance: and why, beside it."""

    name: str
    weight_bits: int
    summary: str
    tolerance: Tolerance


SCHEMES = {
    scheme.name: scheme
    for scheme in (
        # fp32 changes only the order of additions; 1e-4 is a hundred times what that costs six layers,
        # and far below any difference a probability shown with one decimal could reveal.
        Scheme("fp32", 32, "weights and arithmetic in 32-bit floats", Tolerance(1e-4, 0.0)),
        # fp16 keeps 11 bits of every value: 5e-4 of a logit of a few units at each step, several steps deep.
        Scheme("fp16", 16, "weights and arithmetic in 16-bit floats", Tolerance(5e-3, 0.0)),
        # int8 rounds every weight and activation: single logits move, answers may not. 1 % of decided
        # labels is below the error bar of any test split under 10,000 rows. The bound on the error only
        # catches a broken file (a lost scale moves logits by whole units).
        Scheme(
            "int8-dynamic",
            8,
            "8-bit weights per channel, activations quantized as they come, 8-bit embeddings",
            Tolerance(2.0, 0.01),
        ),
        Scheme(
            "int8-weights", 8, "8-bit weights per channel, arithmetic in 16-bit floats", Tolerance(2.0, 0.01)
        ),
        # Static ranges are those of the calibration text, and what is outside them is cut off: 5 % is about
        # what careless ranges cost, so a file that flips more is broken, not only unfaithful.
        Scheme(
            "int8-static",
            8,
            "8-bit weights per channel, activations in ranges measured on real text",
            Tolerance(4.0, 0.05),
        ),
        # Four bits leave 16 values a weight: answers near a border change, and so may a few decided ones.
        Scheme("int4", 4, "4-bit weights and embeddings, a scale for every 32", Tolerance(4.0, 0.03)),
        Scheme("palette6", 6, "weights from a table of 64 values a tensor", Tolerance(2.0, 0.01)),
        Scheme("palette4", 4, "weights from a table of 16 values a tensor", Tolerance(4.0, 0.03)),
    )
}

# How a static scheme may cut the ranges of its activations (ranges.py); best: see export/options.py.
RANGE_RULES = ("best", "minmax", "moving-average", "percentile", "entropy", "mse")

# What may be small in the one that wins a search (export/search.py).
PREFERENCES = ("size", "speed", "agreement")

INT4_BLOCK = 32  # weights of a row that share a scale in int4, in every format

# How weights of 4 bits and of palettes may be rounded; best: see export/options.py.
ROUNDINGS = ("best", "nearest", "gptq")


def rounds_weights(scheme: str) -> bool:
    """True for a scheme whose weights can be rounded in more than one way."""
    return scheme == "int4" or scheme.startswith("palette")
