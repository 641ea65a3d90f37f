"""Stands for the arm64 runner on the phone that fake_adb plays: the model file says how it behaves."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path


def answer(ids: list[int]) -> list[float]:
    """Logits of a text, which the tests know too."""
    return [float(len(ids)), float(sum(ids) % 7)]


def main(model: str, request: str, reply: str) -> None:
    behaviour = Path(model).read_text().split()[0]
    first, second, *lines = Path(request).read_text().splitlines()
    names, (_, _, samples, texts) = first.split()[1:], map(int, second.split())
    assert len(lines) == texts and names[0] == "input_ids"
    rows = [[int(word) for word in line.split()] for line in lines]
    all_ids = [row[1 : 1 + row[0]] for row in rows]
    if behaviour == "crash":
        print("terminate called after throwing an instance of 'Ort::Exception'", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    if behaviour == "hang":
        time.sleep(600)
    if behaviour == "refuse":
        print("cannot load the model\x1b[2J: " + "x" * 5000, file=sys.stderr)
        sys.exit(1)
    slower = 2.0 if behaviour == "throttle" else 1.0
    document = {
        "runtime_version": "1.32.0",
        "load_ms": 12.5,
        "first_ms": 5.0,
        "peak_rss_bytes": 50_000_000,
        "texts": [
            {
                "logits": [value + (9 if behaviour == "wrong" else 0) for value in answer(ids)],
                "samples_ms": [
                    4.0 * (slower if at > samples / 2 else 1) + at / 1000 for at in range(samples)
                ],
            }
            for ids in all_ids
        ],
    }
    content = json.dumps(document)
    if behaviour == "garbage":
        content = content[: len(content) // 2]
    if behaviour == "nan":
        content = content.replace("4.0", "NaN")
    if behaviour == "few":
        document["texts"] = document["texts"][:-1]
        content = json.dumps(document)
    if behaviour == "huge":
        content = " " * (17 * 2**20)
    Path(reply).write_text(content)


if __name__ == "__main__":
    main(*sys.argv[1:])
