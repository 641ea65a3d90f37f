"""The runner on a device: its files, what it is asked, and its reply, which is untrusted."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillroom.errors import CheckFailed

MAX_REPLY_BYTES = 16 * 2**20
MAX_MS = 3.6e6
REPLY = "reply.json"
ERRORS = "errors.txt"
PROCESS_ID = "process.pid"


@dataclass(frozen=True)
class Runner:
    """What is pushed once to a device. files: name there -> file here; loader and program are among them."""

    files: Mapping[str, Path]
    loader: str
    program: str


@dataclass(frozen=True)
class Request:
    """One process on the device. texts: input ids (and segments) of each, one after the other.

    warmup, samples: untimed and timed calls of every text.
    """

    texts: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    inputs: tuple[str, ...]
    warmup: int
    samples: int
    threads: int


@dataclass(frozen=True)
class Reply:
    """What one process found. Times in milliseconds; logits and samples_ms: one row per text."""

    runtime_version: str
    load_ms: float
    first_ms: float
    peak_rss_bytes: int
    logits: tuple[tuple[float, ...], ...]
    samples_ms: tuple[tuple[float, ...], ...]


def write_request(request: Request) -> str:
    """The request as the runner reads it: words and whole numbers, one text a line.

    A line of a text: its length, its input ids, and its segments where the model takes them.
    """
    lines = [
        f"{len(request.inputs)} {' '.join(request.inputs)}",
        f"{request.threads} {request.warmup} {request.samples} {len(request.texts)}",
    ]
    for ids, kinds in request.texts:
        numbers = [len(ids), *ids, *(kinds if "token_type_ids" in request.inputs else ())]
        lines.append(" ".join(map(str, numbers)))
    return "\n".join(lines) + "\n"


def command_line(runner: Runner, folder: str, model: str, request: str, mask: str, limit_s: int) -> str:
    """The line of shell that runs it in its folder on the device; its process id is written first.

    mask: cores for taskset in hexadecimal, "" for all. The kernel ends a process that takes more than limit_s
    of CPU time, so that one whose device is unplugged does not go on for ever.
    """
    pinned = f"taskset {mask} " if mask else ""
    words = [f"./{runner.program}", model, request, REPLY]
    line = (
        f"cd {shlex.quote(folder)} && rm -f {REPLY} {ERRORS} && echo $$ > {PROCESS_ID} && "
        f"ulimit -t {limit_s} && ulimit -c 0 && export ORT_DISABLE_TELEMETRY=1 && "
        f"exec {pinned}./{runner.loader} --library-path . {shlex.join(words)} > /dev/null 2> {ERRORS}"
    )
    return f"sh -c {shlex.quote(line)}"  # a shell of its own: $$ is then the process that exec becomes


def read_reply(content: bytes, request: Request, labels: int) -> Reply:
    """The runner's reply, checked against what was asked. Raises CheckFailed when it is anything else."""
    try:
        document: Any = json.loads(content.decode("utf-8"))
        texts = document["texts"]
        reply = Reply(
            runtime_version=_word(document["runtime_version"]),
            load_ms=_time(document["load_ms"]),
            first_ms=_time(document["first_ms"]),
            peak_rss_bytes=_whole(document["peak_rss_bytes"]),
            logits=tuple(tuple(_number(value) for value in text["logits"]) for text in texts),
            samples_ms=tuple(tuple(_time(value) for value in text["samples_ms"]) for text in texts),
        )
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        raise CheckFailed(f"its reply is no measurement: {content[:60]!r}") from None
    shape = [(len(row), len(times)) for row, times in zip(reply.logits, reply.samples_ms, strict=True)]
    if shape != [(labels, request.samples)] * len(request.texts):
        raise CheckFailed(
            f"its reply is of another shape than {len(request.texts)} texts with {labels} logits and "
            f"{request.samples} samples"
        )
    if not all(math.isfinite(value) for row in reply.logits for value in row):
        raise CheckFailed("its logits are not finite")
    return reply


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError
    return float(value)


def _time(value: Any) -> float:
    if not 0 < _number(value) <= MAX_MS:
        raise ValueError
    return float(value)


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 < value < 2**48:
        raise ValueError
    return value


def _word(value: Any) -> str:
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or len(value) > 40:
        raise ValueError
    return value


def texts_of(
    goldens: Sequence[Mapping[str, Any]],
) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """The ids and segments of golden vectors."""
    return tuple(
        (tuple(golden["input_ids"]), tuple(golden.get("token_type_ids") or [0] * len(golden["input_ids"])))
        for golden in goldens
    )
