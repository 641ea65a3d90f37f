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
        # int8 rounds every weight and activation: single logits move, answers may not. 1 % of decided
        # labels is below the error bar of any test split under 10,000 rows. The bound on the error only
        # catches a broken file (a lost scale moves logits by whole units).
        Scheme(
            "int8-dynamic",
            8,
            "8-bit weights per channel, activations quantized as they come, 8-bit embeddings",
            Tolerance(2.0, 0.01),
        ),
    )
}
