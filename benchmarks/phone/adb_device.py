"""What a device tells of itself, and of its heat and clock, as far as it lets a shell read that."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from stillroom.benchmarks.phone.adb_client import Device, one_line, shell
from stillroom.errors import UsageError

CORE_CHOICES = ("big", "little", "any")
MAX_CORES = 64

# One call: each line is a name and a value, or a name alone where the device does not tell.
_FACTS = r"""
p() { echo "$1 $(getprop $2 2>/dev/null)"; }
command -v getprop >/dev/null 2>&1 && echo 'getprop yes'
command -v sha256sum >/dev/null 2>&1 && echo 'sha256sum yes'
taskset 1 true >/dev/null 2>&1 && echo 'taskset yes'
p manufacturer ro.product.manufacturer; p model ro.product.model; p soc ro.soc.model
p release ro.build.version.release; p sdk ro.build.version.sdk; p abi ro.product.cpu.abi
p qemu ro.kernel.qemu; p boot_qemu ro.boot.qemu; p hardware ro.hardware
echo "machine $(uname -m 2>/dev/null)"
echo "kernel $(uname -r 2>/dev/null)"
grep -c '^CPU implementer' /proc/cpuinfo 2>/dev/null | sed 's/^/implementers /'
grep '^MemTotal:' /proc/meminfo 2>/dev/null | tr -s ' ' | sed 's/^MemTotal:/ram_kb/'
df -k /data/local/tmp 2>/dev/null | tail -n 1 | sed 's/^/df /'
for c in /sys/devices/system/cpu/cpu[0-9]*; do
  echo "core ${c##*/cpu} $(cat $c/cpufreq/cpuinfo_max_freq 2>/dev/null)"
done
"""
_STATE = r"""
for c in /sys/devices/system/cpu/cpu[0-9]*; do
  echo "governor ${c##*/cpu} $(cat $c/cpufreq/scaling_governor 2>/dev/null)"
  echo "limit ${c##*/cpu} $(cat $c/cpufreq/scaling_max_freq 2>/dev/null)"
done
for z in /sys/class/thermal/thermal_zone[0-9]*; do
  echo "zone $(cat $z/type 2>/dev/null) $(cat $z/temp 2>/dev/null)"
done
dumpsys battery 2>/dev/null | grep -E '^ *(temperature|level):' | tr -d ' ' | sed 's/^/battery_/; s/:/ /'
echo "supply_temp $(cat /sys/class/power_supply/battery/temp 2>/dev/null)"
echo "supply_capacity $(cat /sys/class/power_supply/battery/capacity 2>/dev/null)"
"""


@dataclass(frozen=True)
class DeviceFacts:
    """What is known of a device; "unknown" or None where it does not tell. No serial number is among it.

    emulated: its times are an emulator's, for the reason in emulated_because. free_bytes: below
    /data/local/tmp. core_max_khz: core -> its highest clock. has_sha256sum, has_taskset: the tools are there.
    """

    manufacturer: str
    model: str
    soc: str | None
    android_release: str
    android_sdk: int | None
    abi: str
    kernel: str
    cores: int
    core_max_khz: dict[int, int]
    ram_bytes: int | None
    free_bytes: int | None
    has_sha256sum: bool
    has_taskset: bool
    emulated: bool
    emulated_because: str

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "core_max_khz": {str(core): khz for core, khz in self.core_max_khz.items()}}


@dataclass(frozen=True)
class DeviceState:
    """Heat, charge and clock at one moment; empty or None where the device does not let a shell read it.

    governors: core -> governor. limit_khz: core -> the clock it may reach now. zones_celsius: thermal zones.
    """

    governors: dict[str, str]
    limit_khz: dict[str, int]
    zones_celsius: dict[str, float]
    battery_celsius: float | None
    battery_percent: float | None


@dataclass(frozen=True)
class Pinning:
    """Cores a process is held to. mask: hexadecimal for taskset, "" for none. words: which, or why not."""

    mask: str
    cores: tuple[int, ...]
    words: str


def device_facts(device: Device, emulated: bool = False) -> DeviceFacts:
    """Ask a device what it is. emulated: take it for an emulator whatever it says.

    Raises UsageError when it is no arm64 device, CheckFailed when it does not answer.
    """
    facts, cores, free_bytes = _read_facts(shell(device, _FACTS).text)
    machine, abi = facts.get("machine", ""), facts.get("abi", "")
    if not abi and machine == "aarch64":
        abi = "arm64-v8a"
    if abi != "arm64-v8a":
        seen = abi or machine or "unknown"
        raise UsageError(f"device {device.serial} is {seen}: the runner is built for arm64-v8a only")
    because = "said so on the command line" if emulated else _emulated_because(facts)
    return DeviceFacts(
        manufacturer=facts.get("manufacturer") or "unknown",
        model=facts.get("model") or "unknown",
        soc=facts.get("soc") or None,
        android_release=facts.get("release") or "unknown",
        android_sdk=_whole(facts.get("sdk")),
        abi=abi,
        kernel=facts.get("kernel") or "unknown",
        cores=len(cores),
        core_max_khz={core: khz for core, khz in cores.items() if khz is not None},
        ram_bytes=None if (kb := _whole(facts.get("ram_kb", "").split(" ")[0])) is None else kb * 1024,
        free_bytes=free_bytes,
        has_sha256sum="sha256sum" in facts,
        has_taskset="taskset" in facts,
        emulated=bool(because),
        emulated_because=because,
    )


def _read_facts(text: str) -> tuple[dict[str, str], dict[int, int | None], int | None]:
    """Names with values, cores with their highest clock, and free bytes, from the output of _FACTS."""
    facts: dict[str, str] = {}
    cores: dict[int, int | None] = {}
    free_bytes = None
    for line in text.splitlines()[:1000]:
        name, _, value = line.strip().partition(" ")
        if name == "core" and (match := re.fullmatch(r"(\d{1,3})(?: (\d{1,9}))?", value.strip())):
            if len(cores) < MAX_CORES:
                cores[int(match[1])] = int(match[2]) if match[2] else None
        elif name == "df" and (columns := re.search(r"(\d{1,15})\s+(\d{1,15})\s+(\d{1,15})\s+\d+%", value)):
            free_bytes = int(columns[3]) * 1024
        elif re.fullmatch(r"[a-z_0-9]{1,20}", name):
            facts.setdefault(name, one_line(value, 100))
    return facts, cores, free_bytes


def _emulated_because(facts: dict[str, str]) -> str:
    """Why a device is taken for an emulator, "" when nothing says so: its times would say nothing."""
    if "getprop" not in facts:
        return "it has no getprop: not Android on a phone"
    if facts.get("qemu") == "1" or facts.get("boot_qemu") == "1":
        return "its kernel says qemu"
    if facts.get("hardware") in ("goldfish", "ranchu", "cutf_cvm"):
        return f"its hardware is {facts['hardware']}"
    if not _whole(facts.get("implementers")):
        return "its /proc/cpuinfo names no Arm core"
    return ""


def _whole(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"\d{1,15}", text) else None


def device_state(device: Device) -> DeviceState:
    """Heat, charge and clock right now. Raises CheckFailed when the device does not answer."""
    governors: dict[str, str] = {}
    limits: dict[str, int] = {}
    zones: dict[str, float] = {}
    single: dict[str, float] = {}
    for line in shell(device, _STATE).text.splitlines()[:1000]:
        words = one_line(line, 120).split(" ")
        name, value = words[0], words[-1]
        if name == "governor" and len(words) == 3:
            governors[words[1]] = value
        elif name == "limit" and len(words) == 3 and (khz := _whole(value)):
            limits[words[1]] = khz
        elif re.fullmatch(r"-?\d{1,7}", value):
            if name == "zone" and len(words) == 3:
                zones[words[1]] = _celsius(float(value))
            elif len(words) == 2:
                single[name] = float(value)
    tenths = single.get("battery_temperature", single.get("supply_temp"))
    percent = single.get("battery_level", single.get("supply_capacity"))
    return DeviceState(governors, limits, zones, None if tenths is None else tenths / 10, percent)


def _celsius(value: float) -> float:
    """A thermal zone's value in degrees: some kernels tell thousandths."""
    return value / 1000 if abs(value) >= 1000 else value


def choose_cores(facts: DeviceFacts, choice: str, threads: int) -> Pinning:
    """The cores for one choice: "big" (all but the slowest kind), "little" (the slowest kind) or "any".

    Raises UsageError for another choice.
    """
    if choice not in CORE_CHOICES:
        raise UsageError(f"cores {choice!r}: {', '.join(CORE_CHOICES)} are known")
    clocks = facts.core_max_khz
    why = ""
    if choice == "any":
        why = "as asked"
    elif not clocks:
        why = "the device does not tell its cores' clocks"
    elif len(set(clocks.values())) == 1:
        why = "its cores are all alike"
    elif not facts.has_taskset:
        why = "it has no taskset"
    if why:
        return Pinning("", (), f"not pinned: {why}")
    slowest = min(clocks.values())
    cores = tuple(sorted(core for core, khz in clocks.items() if (khz == slowest) == (choice == "little")))
    words = f"{choice} cores {', '.join(map(str, cores))}"
    if threads > len(cores):
        words += f" ({threads} threads share them)"
    return Pinning(f"{sum(1 << core for core in cores):x}", cores, words)
