"""What is told of the machine, and what is not."""

from __future__ import annotations

import json
import os
import platform
from datetime import datetime
from pathlib import Path

import pytest

from stillroom.benchmarks import machine
from stillroom.benchmarks.machine import cpu_name_and_flags, describe_machine

X86 = """processor\t: 0
model name\t: Example CPU @ 2.0GHz
flags\t\t: fpu sse avx2 avx512f avx512_vnni amx_int8 rdtscp
processor\t: 1
model name\t: Another CPU
flags\t\t: fpu
"""
ARM = """processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd evtstrm aes asimddp i8mm bf16
"""


def test_flags_that_matter_are_found_on_both_architectures() -> None:
    assert cpu_name_and_flags(X86) == ("Example CPU @ 2.0GHz", ["avx2", "avx512f", "avx512_vnni", "amx_int8"])
    assert cpu_name_and_flags(ARM) == ("", ["asimd", "asimddp", "i8mm", "bf16"])
    assert cpu_name_and_flags("") == ("", [])


def test_versions_are_of_what_is_installed() -> None:
    import numpy

    found = describe_machine(threads=3)
    assert found["versions"]["numpy"] == numpy.__version__
    assert set(found["versions"]) == {"torch", "transformers", "tokenizers", "onnx", "onnxruntime", "numpy"}
    assert found["threads"] == 3
    assert found["python"] == platform.python_version()
    assert datetime.fromisoformat(found["date"]).utcoffset() is not None


def test_cores_are_those_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda process: {0, 5, 6}, raising=False)
    assert describe_machine(threads=1)["cores"] == 3


def test_what_a_system_does_not_tell_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_text", lambda path: "")
    monkeypatch.delattr(machine.os, "getloadavg", raising=False)
    monkeypatch.setattr(machine.os, "sysconf_names", {}, raising=False)
    found = describe_machine(threads=1)
    assert (found["governor"], found["load_average_1m"], found["memory_bytes"]) == ("", None, None)
    assert found["cpu"]


@pytest.mark.skipif(not hasattr(os, "uname"), reason="no uname to give a host name")
def test_no_host_user_or_path_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.uname()
    named = os.uname_result((real.sysname, "secret-host", real.release, real.version, real.machine))
    monkeypatch.setattr(platform, "_uname_cache", None, raising=False)
    monkeypatch.setattr(os, "uname", lambda: named)
    for name in ("USER", "LOGNAME", "HOME", "HOSTNAME", "PWD"):
        monkeypatch.setenv(name, "/secret-folder")
    told = json.dumps(describe_machine(threads=1))
    monkeypatch.undo()
    platform.uname.cache_clear() if hasattr(platform.uname, "cache_clear") else None
    assert "secret" not in told
    assert str(Path.home()) not in told
