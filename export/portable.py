"""Whether a file answers the same on every CPU, and what says so: for artifact.json and the manifest.

Portable: no CPU cuts a sum of products off. Floats round a little differently everywhere, which tolerances
are for; a sum that saturates (saturation.py) is another number.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stillroom.observe import Batch

if TYPE_CHECKING:
    from stillroom.export.options import ExportOptions
    from stillroom.export.static_int8 import Numerics
    from stillroom.ranges import Ranges

EVIDENCE_ROWS = 32  # of the calibration text, answered as x86 without VNNI would


@dataclass(frozen=True)
class Portable:
    """portable: no sum saturates. reason: why that is known, or what was seen; one line.

    rows: texts answered by emulation, 0 where none was needed. dot_products: computed in that; saturated: of
    them. flip_rate: share of the rows whose label that changes.
    """

    portable: bool
    reason: str
    rows: int = 0
    dot_products: int = 0
    saturated: int = 0
    flip_rate: float = 0.0


def by_construction(target: str, scheme: str, options: ExportOptions) -> Portable:
    """What is known of a file without looking: its arithmetic, or that nothing was looked at."""
    if scheme in ("fp32", "fp16", "int8-weights") or scheme.startswith("palette") or "coreml" in target:
        return Portable(True, "its sums are of floats")
    if target == "executorch":
        return Portable(True, "XNNPACK adds products of 8 bits in 32 bits on every CPU")
    if target == "torchscript":
        return Portable(True, "torch rounds activations to 7 bits, and sums of two products fit 16 bits")
    if scheme == "int4":
        return Portable(True, "4-bit weights: sums of two products fit 16 bits")
    if options.signed and scheme == "int8-static":
        return Portable(True, "signed activations: onnxruntime adds their products in 32 bits on every CPU")
    if options.portable:
        return Portable(True, "7-bit weights: sums of two products fit 16 bits")
    return Portable(
        False, "not checked on text: stillroom export --calibration FILE does, --portable avoids it"
    )


def by_emulation(
    wrapped: Any, ranges: Ranges | None, numerics: Numerics, kind: str, calibration: Sequence[Batch]
) -> Portable:
    """What an ExportModel in int8 answers to calibration rows on x86 without VNNI.

    ranges: of a static scheme; None for a dynamic one.
    """
    from stillroom.export.saturation import own_ranges, without_vnni

    texts = (
        tuple(array[at : at + 1] for array in batch) for batch in calibration for at in range(len(batch[0]))
    )
    rows = list(itertools.islice(texts, EVIDENCE_ROWS))  # one by one: a dynamic scheme has ranges for each
    asked = [(own_ranges(wrapped, row), [row]) for row in rows] if ranges is None else [(ranges, rows)]
    found = without_vnni(wrapped, asked, numerics, kind)
    share = found.saturated / found.dot_products
    reason = (
        f"on x86 without VNNI {share:.3%} of dot products saturate, and {found.agreement.flip_rate:.2%} of "
        f"{found.agreement.rows} labels flip"
    )
    return Portable(
        found.saturated == 0,
        reason + ("; stillroom export --portable avoids it" if found.saturated else ""),
        found.agreement.rows,
        found.dot_products,
        found.saturated,
        found.agreement.flip_rate,
    )
