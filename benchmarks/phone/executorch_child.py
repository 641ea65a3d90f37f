"""Runs ExecuTorch programs in Python for arm64 under emulation: MODEL REQUEST REPLY, as runner.c takes them.

It imports nothing of stillroom, which is not there. Times are of the emulator and mean nothing.
"""

import json
import sys
import time
from pathlib import Path


def resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("no VmHWM in /proc/self/status")


def main(model: str, request: str, reply: str) -> None:
    import torch
    from executorch.extension.pybindings import _portable_lib

    lines = Path(request).read_text().splitlines()
    names = lines[0].split()[1:]
    _, warmup, samples, texts = map(int, lines[1].split())
    start = time.perf_counter()
    program = _portable_lib._load_for_executorch(model)
    load_ms = 1e3 * (time.perf_counter() - start)
    found, first_ms = [], 0.0
    for line in lines[2 : 2 + texts]:
        length, *numbers = map(int, line.split())
        ids = torch.tensor([numbers[:length]])
        kinds = torch.tensor([numbers[length : 2 * length] or [0] * length])
        values = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": kinds}
        times = []
        for _ in range(warmup + samples):
            start = time.perf_counter()
            (logits,) = program.forward([values[name] for name in names])
            times.append(1e3 * (time.perf_counter() - start))
        first_ms = first_ms or times[0]
        found.append({"logits": logits[0].tolist(), "samples_ms": times[warmup:]})
    version = (Path(_portable_lib.__file__).parents[2] / "version.py").read_text()
    names_in_it: dict[str, str] = {}
    exec(version, names_in_it)
    document = {"texts": found, "runtime_version": names_in_it["__version__"], "load_ms": load_ms,
                "first_ms": first_ms, "peak_rss_bytes": resident_bytes()}  # fmt: skip
    Path(reply).write_text(json.dumps(document))


if __name__ == "__main__":
    main(*sys.argv[1:])
