"""Our own files, as a run exports them. A JSON request on standard input: scheme (a cell such as
"onnx-int8-dynamic"), student, inputs (an .npz with calibration_ids and calibration_offsets), out.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from stillroom.export.options import ExportOptions
from stillroom.export.targets import export, split_name
from stillroom.observe import calibration_of
from stillroom.student import load_student
from stillroom.tokens import Tokens


def main(cell: str, student: str, inputs: str, out: str) -> None:
    arrays, (target, scheme) = np.load(inputs, allow_pickle=False), split_name(cell)
    ids, offsets = arrays["calibration_ids"], arrays["calibration_offsets"]
    tokens = Tokens(ids, np.zeros_like(ids), offsets, np.full(len(offsets) - 1, -1), pad_id=0)
    options = ExportOptions(
        calibration=calibration_of(tokens, load_student(Path(student)).task.inputs), prefer_learned=True
    )
    with tempfile.TemporaryDirectory() as scratch:
        made = export(student, target, scheme, Path(scratch) / "artifact", options)
        shutil.move(made.folder / made.file, Path(out) / made.file)


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    main(asked["scheme"], asked["student"], asked["inputs"], asked["out"])
