"""What a phone of some class might take: a roofline and an instruction count, always as a range, never as a
measurement. benchmarks/devices.toml holds the classes with the source of every value."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stillroom.benchmarks.statistics import percentiles
from stillroom.benchmarks.tables import NOT_MEASURED, Table
from stillroom.errors import UsageError, did_you_mean
from stillroom.files import read_json
from stillroom.toml_tables import Key, Limit, Place, as_plain, build, check_limits, read_toml

DEVICES_FILE = Path(__file__).with_name("devices.toml")

# (fastest, slowest) share of a limit that a whole model reaches: assumptions, not measurements. Nothing keeps
# a model from the full rate of the best kernel; a quarter of it is what softmax, LayerNorm, small products
# and one text at a time may leave.
COMPUTE_SHARE = (1.0, 0.25)
# One core cannot draw all of a phone's bandwidth, and other parts of the chip share it.
MEMORY_SHARE = (0.9, 0.3)
# Instructions retired per cycle, as a share of what the front end takes in.
ISSUE_SHARE = (0.9, 0.25)

_POSITIVE = Limit(lambda value: value > 0, "a number above 0")


@dataclass(frozen=True)
class Core:
    """One kind of core. macs_*_per_cycle: multiply-accumulates per core and cycle in large matrix products.

    issue_width: instructions per cycle. qemu: its name in qemu-user, "" where there is none.
    """

    vector_bits: int
    int8_instructions: str
    macs_fp32_per_cycle: float
    macs_int8_per_cycle: float
    issue_width: int
    qemu: str
    source: str


@dataclass(frozen=True)
class Cluster:
    """So many cores of one kind at one clock. core: a key of cores in devices.toml."""

    core: str
    cores: int
    clock_ghz: float


@dataclass(frozen=True)
class _Device:
    title: str
    example: str
    soc_models: tuple[str, ...]
    bandwidth_gb_per_s: float
    ram_gb: float
    source: str


@dataclass(frozen=True)
class Profile(_Device):
    """A class of phones. clusters: name -> cluster, the fastest first; cores: the kinds they are of.

    soc_models: what android.os.Build.SOC_MODEL says on such phones.
    """

    name: str
    clusters: Mapping[str, Cluster]
    cores: Mapping[str, Core]


@dataclass(frozen=True)
class Cost:
    """One inference. macs_*: multiply-accumulates by the product's type. bytes_moved: to and from memory.

    instructions: executed on the named core under emulation, None where they were not counted.
    """

    macs_int8: int
    macs_fp32: int
    bytes_moved: int
    instructions: int | None = None

    def __post_init__(self) -> None:
        if min(self.macs_int8, self.macs_fp32, self.bytes_moved, self.instructions or 0) < 0:
            raise UsageError(f"a cost below zero: {self}")


def cost_of(profile: Mapping[str, Any]) -> Cost:
    """The cost of a file, from its profile (benchmarks/profile.py); instructions are not in it."""
    return Cost(
        macs_int8=profile["int8_operations"] // 2,  # two operations each
        macs_fp32=profile["fp32_operations"] // 2,
        bytes_moved=profile["traffic_bytes"],
    )


@dataclass(frozen=True)
class Estimate:
    """An estimate of one inference's latency, from low_ms to high_ms; never a measurement.

    roofline_*: the larger of arithmetic and memory traffic. instructions_*: from the instruction count, None
    without one. bound: which side of the roofline holds at low_ms, "compute" or "memory".
    """

    profile: str
    cluster: str
    threads: int
    roofline_low_ms: float
    roofline_high_ms: float
    instructions_low_ms: float | None
    instructions_high_ms: float | None
    low_ms: float
    high_ms: float
    bound: str
    label: str = "estimate"


@dataclass(frozen=True)
class Measured:
    """A median from a real device, source. soc: its SOC_MODEL; sha256: of the model file."""

    sha256: str
    soc: str
    threads: int
    p50_ms: float
    source: str


def read_profiles(path: Path = DEVICES_FILE) -> dict[str, Profile]:
    """Name -> profile, in the file's order. Raises UsageError naming the line of what does not fit."""
    values, place = read_toml(path)
    for key in values:
        if key not in ("cores", "devices"):
            raise UsageError(f"{place((key,))}unknown key {key!r}{did_you_mean(key, ('cores', 'devices'))}")
    cores = {
        name: _core(table, place, ("cores", name)) for name, table in _tables(values, "cores", place, ())
    }
    return {
        name: _profile(name, table, cores, place) for name, table in _tables(values, "devices", place, ())
    }


def _below(place: Place, above: Key, inner: Key) -> str:
    """The place of a key in a table that lies below another key."""
    return place((*above, *inner))


def _tables(values: dict[str, Any], key: str, place: Place, above: Key) -> list[tuple[str, dict[str, Any]]]:
    """The tables below values[key], at least one."""
    found = values.get(key)
    dotted = ".".join((*above, key))
    if not isinstance(found, dict) or not found or not all(isinstance(one, dict) for one in found.values()):
        raise UsageError(f"{place((*above, key))}{dotted} must hold tables, such as [{dotted}.one]")
    return list(found.items())


def _complete(kind: Any, table: dict[str, Any], place: Place, key: Key) -> Any:
    missing = [name for name in kind.__dataclass_fields__ if name not in table]
    if missing:
        raise UsageError(f"{place(key)}{'.'.join(key)} has no {missing[0]}")
    return build(kind, table, place, key)


def _core(table: dict[str, Any], place: Place, key: Key) -> Core:
    core: Core = _complete(Core, table, place, key)
    limits = {
        "vector_bits": Limit(lambda value: value in (64, 128, 256, 512), "64, 128, 256 or 512"),
        "macs_fp32_per_cycle": _POSITIVE,
        "macs_int8_per_cycle": _POSITIVE,
        "issue_width": _POSITIVE,
        "source": Limit(bool, "where the values are from"),
    }
    check_limits(as_plain(core), limits, functools.partial(_below, place, key))
    return core


def _profile(name: str, table: dict[str, Any], cores: dict[str, Core], place: Place) -> Profile:
    key: Key = ("devices", name)
    clusters: dict[str, Cluster] = {}
    for title, inner in _tables(table, "clusters", place, key):
        below = (*key, "clusters", title)
        cluster: Cluster = _complete(Cluster, inner, place, below)
        if cluster.core not in cores:
            hint = did_you_mean(cluster.core, cores)
            raise UsageError(f"{place((*below, 'core'))}no core {cluster.core!r} in [cores]{hint}")
        limits = {"cores": _POSITIVE, "clock_ghz": _POSITIVE}
        check_limits(as_plain(cluster), limits, functools.partial(_below, place, below))
        clusters[title] = cluster
    device: _Device = _complete(_Device, {k: v for k, v in table.items() if k != "clusters"}, place, key)
    limits = {
        "bandwidth_gb_per_s": _POSITIVE,
        "ram_gb": _POSITIVE,
        "source": Limit(bool, "where the values are from"),
    }
    check_limits(as_plain(device), limits, functools.partial(_below, place, key))
    used = {cluster.core: cores[cluster.core] for cluster in clusters.values()}
    return Profile(
        name=name, clusters=clusters, cores=used, **{k: getattr(device, k) for k in asdict(device)}
    )


def estimate_latency_ms(
    profile: Profile, cost: Cost, cluster: str | None = None, threads: int = 1
) -> Estimate:
    """The range of one inference on so many cores of a cluster (the first, the fastest, by default).

    Raises UsageError for a cluster the profile has not, or more threads than it has cores.
    """
    name = next(iter(profile.clusters)) if cluster is None else cluster
    if name not in profile.clusters:
        raise UsageError(f"{profile.name} has no cluster {name!r}: it has {', '.join(profile.clusters)}")
    chosen = profile.clusters[name]
    if not 1 <= threads <= chosen.cores:
        raise UsageError(f"{threads} threads: {profile.name}'s {name} cluster has 1 to {chosen.cores} cores")
    core = profile.cores[chosen.core]
    cycles = cost.macs_int8 / core.macs_int8_per_cycle + cost.macs_fp32 / core.macs_fp32_per_cycle
    compute_ms = cycles / (chosen.clock_ghz * 1e6 * threads)
    memory_ms = cost.bytes_moved / (profile.bandwidth_gb_per_s * 1e6)
    low, high = (
        max(compute_ms / compute_share, memory_ms / memory_share)
        for compute_share, memory_share in zip(COMPUTE_SHARE, MEMORY_SHARE, strict=True)
    )
    instructions_ms: tuple[float, ...] = ()
    if cost.instructions is not None:
        full_ms = cost.instructions / (core.issue_width * chosen.clock_ghz * 1e6 * threads)
        instructions_ms = tuple(full_ms / share for share in ISSUE_SHARE)
    return Estimate(
        profile=profile.name,
        cluster=name,
        threads=threads,
        roofline_low_ms=low,
        roofline_high_ms=high,
        instructions_low_ms=instructions_ms[0] if instructions_ms else None,
        instructions_high_ms=instructions_ms[1] if instructions_ms else None,
        low_ms=min(low, *instructions_ms) if instructions_ms else low,
        high_ms=max(high, *instructions_ms) if instructions_ms else high,
        bound="compute" if compute_ms / COMPUTE_SHARE[0] >= memory_ms / MEMORY_SHARE[0] else "memory",
    )


def measured_of(documents: Iterable[dict[str, Any]]) -> list[Measured]:
    """Medians of real devices from imported app results (app_results.app_document) and adb documents.

    What an emulator took is left out, and a device that does not tell its chip.
    """
    found = []
    for document in documents:
        device = document["device"]
        emulated = device.get("emulator", document.get("emulated", False))
        if emulated or not device.get("soc") or not document["samples_ms"]:
            continue
        name = f"{device['manufacturer']} {device['model']}"
        p50_ms = percentiles(document["samples_ms"])["p50"]
        found.append(Measured(document["sha256"], device["soc"], document["threads"], p50_ms, name))
    return found


def errors_against(
    estimate: Estimate, profile: Profile, sha256: str, measured: Sequence[Measured]
) -> list[dict[str, Any]]:
    """How far an estimate is from each measurement of this model file on such a phone with as many threads.

    factor: the range's middle (geometric mean) over the measured median. within: the median is in the range.
    """
    chips = {chip.casefold() for chip in profile.soc_models}
    middle_ms = math.sqrt(estimate.low_ms * estimate.high_ms)
    return [
        {
            "source": found.source,
            "p50_ms": found.p50_ms,
            "factor": middle_ms / found.p50_ms,
            "within": estimate.low_ms <= found.p50_ms <= estimate.high_ms,
        }
        for found in measured
        if found.sha256 == sha256 and found.threads == estimate.threads and found.soc.casefold() in chips
    ]


def read_counts(path: Path, profiles: Iterable[Profile], tokens: int) -> dict[tuple[str, str], int]:
    """(sha256 of a file, int8 instructions of a core) -> instructions of one inference of so many tokens.

    path: what stillroom bench --target arm64 --out wrote; nothing is found where it counted another length.
    A runtime picks its kernels by a core's int8 instructions, so a count holds for every core with the same.
    Raises UsageError when the file is not that.
    """
    kinds = {core.qemu: core.int8_instructions for profile in profiles for core in profile.cores.values()}
    document = read_json(path)
    counts: dict[tuple[str, str], int] = {}
    try:
        for row in document["rows"] if document["counted_tokens"] == tokens else ():
            if row["instructions"] is not None:
                key = (str(row["sha256"]), kinds[document["cores"][row["core"]]])
                counts[key] = int(row["instructions"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        made_by = "stillroom bench ... --target arm64 --out FOLDER"
        raise UsageError(f"{path} is not the bench.json of {made_by}: {error!r}") from error
    return counts


def estimates(
    profiles: Iterable[Profile],
    costs: Mapping[str, Cost],
    sha256s: Mapping[str, str],
    measured: Sequence[Measured] = (),
    threads: int = 1,
    counted: Mapping[tuple[str, str], int] | None = None,
) -> list[dict[str, Any]]:
    """Every artifact on every class of phone, as JSON. costs, sha256s: artifact name -> its own.

    threads: at most; a cluster with fewer cores gets fewer. counted: from read_counts().
    """
    rows = []
    for profile in profiles:
        first = next(iter(profile.clusters.values()))
        kind = profile.cores[first.core].int8_instructions
        for name, cost in costs.items():
            instructions = (counted or {}).get((sha256s[name], kind), cost.instructions)
            found = estimate_latency_ms(
                profile, replace(cost, instructions=instructions), threads=min(threads, first.cores)
            )
            errors = errors_against(found, profile, sha256s[name], measured)
            rows.append({"artifact": name, "title": profile.title, **asdict(found), "measured": errors})
    return rows


def estimate_table(rows: Sequence[dict[str, Any]]) -> Table:
    """One line per row of estimates(); every figure says that it is an estimate."""
    header = ("phone class", "file", "cores", "estimate, ms", "by roofline, ms", "by instructions, ms")
    return Table((*header, "bound", "measured"), tuple(_cells(row) for row in rows), 2)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    seen = [
        f"{found['source']}: {found['p50_ms']:.2f} ms, estimate {found['factor']:.1f}×"
        f"{'' if found['within'] else ', outside the range'}"
        for found in row["measured"]
    ]
    return (
        row["title"],
        row["artifact"],
        f"{row['threads']}x {row['cluster']}",
        f"{_range(row['low_ms'], row['high_ms'])} (estimate)",
        _range(row["roofline_low_ms"], row["roofline_high_ms"]),
        _range(row["instructions_low_ms"], row["instructions_high_ms"]),
        row["bound"],
        "; ".join(seen) or "no phone",
    )


def _range(low_ms: float | None, high_ms: float | None) -> str:
    if low_ms is None or high_ms is None:
        return NOT_MEASURED
    return f"{low_ms:,.3g}–{high_ms:,.3g}"
