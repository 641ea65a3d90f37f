"""Several processes that train one model: who this one is, how they start, and how they wait for the first.

Whoever starts them (stillroom --num-processes, accelerate launch, torchrun) says so in RANK and WORLD_SIZE.
The first does every step of a run and alone writes; the others join it where a model is trained.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import IO, Any

from stillroom.errors import UsageError

POLL_S = 0.1
GRACE_S = 10.0  # for a process to end by itself once another has ended
PATIENCE = timedelta(days=7)  # of a process that waits for the first, which may be reading a large corpus


def process_count() -> int:
    """How many processes train together, on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """True in the process that writes, and in one that works alone."""
    return int(os.environ.get("RANK", "0")) == 0


def connect() -> None:
    """Join the other processes, if there are any. Once is enough, more does no harm."""
    import torch
    from accelerate import PartialState

    options: dict[str, Any] = {"timeout": PATIENCE} if process_count() > 1 else {}
    PartialState(cpu=not torch.cuda.is_available(), **options)
    atexit.unregister(_leave)
    atexit.register(_leave)


def _leave() -> None:
    """Close what joins the processes: gloo's threads, if there at the end, abort one process in twenty."""
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def told_by_first(value: Any) -> Any:
    """The first process' value, in all of them; the others wait for it, however long the first works."""
    if process_count() == 1:
        return value
    connect()
    import torch.distributed

    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def wait_for_first() -> None:
    """Return when the first process has come here too."""
    told_by_first(None)


def run_processes(count: int, arguments: Sequence[str]) -> int:
    """Run `stillroom ARGUMENTS` in count processes on this machine; the exit code of the first that failed.

    They share the CPU's cores. SIGTERM is passed on. Raises UsageError for a count below 1.
    """
    if count < 1:
        raise UsageError(f"--num-processes {count}: expected 1 or more")
    common = {
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count)),
        **os.environ,
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
    }
    command = [sys.executable, "-m", "stillroom", *arguments]
    with tempfile.TemporaryFile() as others_say:
        children = []
        for rank in range(count):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            errors = others_say if rank else None
            children.append(subprocess.Popen(command, env={**common, **place}, stderr=errors))
        before = signal.signal(signal.SIGTERM, lambda *_: _send(children, signal.SIGTERM))
        try:
            code = _wait(children)
        finally:
            _send(children, signal.SIGKILL)
            signal.signal(signal.SIGTERM, before)
        if code and not children[0].returncode:  # the first has nothing to say about it
            _repeat(others_say)
    return code


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(children: list[subprocess.Popen[bytes]]) -> int:
    """Wait until all have ended, or one has failed and the rest had time to; that one's exit code."""
    while all(child.poll() in (None, 0) for child in children):
        if all(child.poll() == 0 for child in children):
            return 0
        time.sleep(POLL_S)
    deadline = time.monotonic() + GRACE_S
    while any(child.poll() is None for child in children) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    failed = next(child.returncode for child in children if child.returncode)
    return failed if failed > 0 else 128 - failed  # killed by a signal, as the shell counts it


def _send(children: list[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    for child in children:
        if child.poll() is None:
            child.send_signal(number)
    if number == signal.SIGKILL:
        for child in children:
            child.wait()


def _repeat(said: IO[bytes]) -> None:
    said.seek(0)
    sys.stderr.write(said.read().decode("utf-8", errors="replace"))
