"""Where a file will run, and the numerics that suit it: the table that stillroom export --for follows.

docs/formats.md has the same table with the reasons. Every file runs everywhere; this is about speed, and
about sums that a CPU without VNNI cuts off (export/saturation.py).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """format: where none is asked for. signed, portable: see ExportOptions; they concern ONNX int8 alone."""

    format: str
    signed: bool
    portable: bool


ANYWHERE = Device("onnx-int8-dynamic", signed=False, portable=False)
DEVICES = {
    # arm64 adds all products in 32 bits, and multiplies int8 by int8 at least as fast as uint8 by int8.
    "android": Device("onnx-int8-dynamic", signed=True, portable=False),
    "ios": Device("coreml-int8-weights", signed=True, portable=False),
    # x86 multiplies uint8 by int8, and int8 by int8 four times as slowly; not every server has VNNI.
    "server": Device("onnx-int8-dynamic", signed=False, portable=True),
}
