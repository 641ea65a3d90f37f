"""The machine a figure was measured on, without anything that says whose machine it is."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stillroom.extras import version_of

# Instructions that decide how fast fp32, fp16 and int8 kernels run; the other hundred flags say nothing.
RELEVANT_FLAGS = (
    *("avx2", "f16c", "fma", "avx_vnni", "avx_vnni_int8"),
    *("avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)
PACKAGES = ("torch", "transformers", "tokenizers", "onnx", "onnxruntime", "numpy")


def _text(path: str) -> str:
    """Content of a system file, or "" where the system has none or does not show it."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def cpu_name_and_flags(cpuinfo: str) -> tuple[str, list[str]]:
    """Model name ("" if not stated) and relevant flags from the text of /proc/cpuinfo, x86 or Arm."""
    facts: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip().lower(), value.strip())  # the first core speaks for all
    present = {*facts.get("flags", "").split(), *facts.get("features", "").split()}
    name = facts.get("model name") or facts.get("hardware") or ""
    return name, [flag for flag in RELEVANT_FLAGS if flag in present]


def usable_cores() -> int:
    """Cores this process may run on: containers and taskset allow fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_machine(threads: int) -> dict[str, Any]:
    """CPU, memory, system, package versions and load right now; threads is what the runtimes get.

    A value the system does not tell is "" (text) or null (a number). No host name, user or path.
    """
    name, flags = cpu_name_and_flags(_text("/proc/cpuinfo"))
    sysconf = getattr(os, "sysconf_names", {})
    has_memory = "SC_PHYS_PAGES" in sysconf and "SC_PAGE_SIZE" in sysconf
    return {
        "cpu": name or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "cores": usable_cores(),
        "cpu_flags": flags,
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if has_memory else None,
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {package: version_of(package) for package in PACKAGES},
        "threads": threads,
        "load_average_1m": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
