"""What turning text into token ids costs, apart from the model: each text alone, in a fresh process."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stillroom.benchmarks.measure import ask
from stillroom.errors import CheckFailed

Text = tuple[str, str | None]  # and the second text of a pair
COMMAND = (sys.executable, "-P", "-m", "stillroom.benchmarks.tokenization")
TIMEOUT_S = 60
ROW_TIMEOUT_S = 0.1  # more per text
WARM_UP_TEXTS = 20


def time_tokenizer(
    folder: Path, max_length: int, texts: Sequence[Text], command: Sequence[str] = COMMAND
) -> tuple[float, ...]:
    """Milliseconds from text to ids, one value per text, by folder/tokenizer.json on one thread.

    Raises CheckFailed when the process fails or does not finish in time.
    """
    request = {"folder": str(folder), "max_length": max_length, "texts": texts}
    reply = ask(f"tokenizer of {folder}", [request], TIMEOUT_S + ROW_TIMEOUT_S * len(texts), command)
    found = tuple(float(ms) for ms in reply)
    if len(found) != len(texts):
        raise CheckFailed(f"{folder}: {len(found)} times for {len(texts)} texts")
    return found


def run_child(request: dict[str, Any]) -> list[float]:
    """The child's side: milliseconds of each text."""
    from stillroom.tokens import load_tokenizer

    tokenizer = load_tokenizer(Path(request["folder"]), request["max_length"])
    texts = [(text,) if pair is None else (text, pair) for text, pair in request["texts"]]
    for text in texts[:WARM_UP_TEXTS]:
        tokenizer.encode(*text)
    samples_ms = []
    for text in texts:
        start_ns = time.perf_counter_ns()
        tokenizer.encode(*text)
        samples_ms.append((time.perf_counter_ns() - start_ns) / 1e6)
    return samples_ms


if __name__ == "__main__":
    from stillroom.benchmarks.measure_child import answer

    sys.exit(answer(lambda: run_child(json.loads(sys.stdin.readline()))))
