"""What an export may be asked for beside target and scheme."""

from __future__ import annotations

from dataclasses import dataclass

from stillroom.errors import UsageError
from stillroom.observe import Batch
from stillroom.progress import say


@dataclass(frozen=True)
class ExportOptions:
    """lengths: tokens a text may have; none: any up to the task's max_length; one: exactly that, the rest is
    padding; several: one of these, Core ML only. ios: oldest version that must run it, Core ML only; 0: the
    oldest that the scheme allows. author, license: for the file's own metadata, Core ML only.

    calibration: real text as the model's inputs, int64 [rows, tokens] each, without padding, for static
    schemes and GPTQ. ranges: the rule of scheme.RANGE_RULES by which static schemes take theirs from it;
    "best": the one whose answers differ least. prefer_learned: take those that the source has learned in
    training instead, where it has. keep: groups (sensitivity.py) that they leave in fp32. signed: int8-static
    of ONNX has int8 activations, not uint8. rounding: how weights of 4 bits and palettes are rounded, one of
    scheme.ROUNDINGS; "best": by GPTQ where there is calibration, else to nearest. portable: 7-bit weights in
    ONNX int8, whose products no CPU cuts off (saturation.py).
    text_input: also write a file that takes a text, ONNX only (text_input.py). shorten: compute the last
    layer for the first token only; False as other exporters do.
    """

    lengths: tuple[int, ...] = ()
    ios: int = 0
    author: str = ""
    license: str = ""
    text_input: bool = False
    shorten: bool = True
    calibration: tuple[Batch, ...] = ()
    ranges: str = "best"
    prefer_learned: bool = False
    keep: tuple[str, ...] = ()
    signed: bool = False
    rounding: str = "best"
    portable: bool = False


def rounds_to_nearest(options: ExportOptions) -> bool:
    """True where the target's own tool shall round: asked for, or there is no text to do better with."""
    return options.rounding == "nearest" or not options.calibration


def check_rounding(options: ExportOptions) -> None:
    """Raise UsageError where gptq is asked for and there is no text; say what "best" does without any."""
    if options.rounding == "gptq" and not options.calibration:
        raise UsageError("--rounding gptq needs texts: --calibration FILE")
    if options.rounding == "best" and not options.calibration:
        say("  weights are rounded to nearest; with --calibration FILE about half as many labels change")
