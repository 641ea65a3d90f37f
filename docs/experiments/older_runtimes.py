"""Which onnxruntime opens a file? python docs/experiments/older_runtimes.py ARTIFACT...

Installs releases of onnxruntime into folders of their own, over the network, opens every ONNX artifact with
each, and compares its answer to a few token ids with that of the release in use here. The findings are in
docs/log.md and in export/lint.py.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

RELEASES = ("1.16.3", "1.17.3", "1.18.1", "1.19.2", "1.20.1", "1.21.1", "1.22.1", "1.23.2", "1.24.1")
OPEN = """
import json, sys
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
try:
    session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    ids = numpy.arange(1000, 1024)[None]
    arrays = (ids, numpy.ones_like(ids), numpy.zeros_like(ids))
    names = [entry.name for entry in session.get_inputs()]
    print(json.dumps(session.run(["logits"], dict(zip(names, arrays)))[0].tolist()))
except Exception as error:
    print(json.dumps(str(error).splitlines()[0]))
"""


def opened(file: Path, packages: Path | None) -> list[list[float]] | str:
    """What a file answers, or the error; with the packages in a folder before those installed."""
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    if packages is not None:
        environment["PYTHONPATH"] = str(packages)
    command = [sys.executable, "-c", OPEN, str(file)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found: list[list[float]] | str = json.loads(done.stdout)
    return found


def main(artifacts: list[Path]) -> None:
    files = [path for folder in artifacts for path in folder.glob("model.o*")]
    wanted = {file: opened(file, None) for file in files}
    print(f"| onnxruntime | {' | '.join(file.parent.name for file in files)} |")
    print(f"| --- |{' --- |' * len(files)}")
    for release in RELEASES:
        with tempfile.TemporaryDirectory() as scratch:
            install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", scratch]
            subprocess.run([*install, f"onnxruntime=={release}", "numpy<2"], check=True)
            cells = []
            for file in files:
                found, right = opened(file, Path(scratch)), wanted[file]
                if isinstance(found, str) or isinstance(right, str):
                    cells.append("refused")
                    continue
                pairs = zip(found[0], right[0], strict=True)
                cells.append(f"{max(abs(one - other) for one, other in pairs):.1g}")
        print(f"| {release} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main([Path(folder) for folder in sys.argv[1:]])
