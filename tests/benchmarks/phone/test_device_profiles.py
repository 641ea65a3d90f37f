"""Estimates: their arithmetic by hand, what must never make one slower, and a file with mistakes in it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.benchmarks.phone.device_profiles import (
    COMPUTE_SHARE,
    DEVICES_FILE,
    ISSUE_SHARE,
    MEMORY_SHARE,
    Cost,
    Measured,
    Profile,
    errors_against,
    estimate_latency_ms,
    estimate_table,
    estimates,
    measured_of,
    read_profiles,
)
from stillroom.errors import UsageError

PROFILES = read_profiles()
COSTS = st.builds(
    Cost,
    st.integers(0, 10**12),
    st.integers(0, 10**12),
    st.integers(0, 10**12),
    st.none() | st.integers(0, 10**13),
)
ANY_PROFILE = st.sampled_from(list(PROFILES.values()))
MODEL = Cost(macs_int8=500_000_000, macs_fp32=10_000_000, bytes_moved=20_000_000, instructions=49_000_000)


def faster(profile: Profile, bandwidth: float, clock: float) -> Profile:
    clusters = {
        name: dataclasses.replace(cluster, clock_ghz=cluster.clock_ghz * clock)
        for name, cluster in profile.clusters.items()
    }
    more = profile.bandwidth_gb_per_s * bandwidth
    return dataclasses.replace(profile, bandwidth_gb_per_s=more, clusters=clusters)


def test_every_class_names_its_sources_and_its_cores() -> None:
    assert len(PROFILES) >= 4
    for profile in PROFILES.values():
        assert len(profile.source) > 20 and profile.soc_models
        assert {cluster.core for cluster in profile.clusters.values()} == set(profile.cores)
        assert all(len(core.source) > 20 for core in profile.cores.values())


def test_the_fastest_cluster_comes_first() -> None:
    for profile in PROFILES.values():
        work = Cost(10**9, 0, 0)
        times = [estimate_latency_ms(profile, work, cluster).low_ms for cluster in profile.clusters]
        assert times == sorted(times)


def test_the_arithmetic_by_hand() -> None:
    profile = PROFILES["mid-range-2019"]
    core, cluster = profile.cores["cortex-a76"], profile.clusters["big"]
    found = estimate_latency_ms(profile, MODEL, threads=2)
    cycles = 5e8 / core.macs_int8_per_cycle + 1e7 / core.macs_fp32_per_cycle
    compute_ms = cycles / 2 / (cluster.clock_ghz * 1e9) * 1e3
    memory_ms = 2e7 / 17e9 * 1e3
    assert found.roofline_low_ms == pytest.approx(
        max(compute_ms / COMPUTE_SHARE[0], memory_ms / MEMORY_SHARE[0])
    )
    assert found.roofline_high_ms == pytest.approx(
        max(compute_ms / COMPUTE_SHARE[1], memory_ms / MEMORY_SHARE[1])
    )
    full_ms = 49e6 / (4 * 2 * cluster.clock_ghz * 1e9) * 1e3
    assert found.instructions_low_ms == pytest.approx(full_ms / ISSUE_SHARE[0])
    assert found.instructions_high_ms == pytest.approx(full_ms / ISSUE_SHARE[1])
    assert found.low_ms == min(found.roofline_low_ms, found.instructions_low_ms)
    assert found.high_ms == max(found.roofline_high_ms, found.instructions_high_ms)
    assert (found.label, found.bound, found.threads) == ("estimate", "compute", 2)
    assert estimate_latency_ms(profile, Cost(0, 1, 10**9)).bound == "memory"


@given(ANY_PROFILE, COSTS, st.floats(1, 100), st.floats(1, 100))
def test_more_bandwidth_or_clock_is_never_slower(
    profile: Profile, cost: Cost, bandwidth: float, clock: float
) -> None:
    before, after = (estimate_latency_ms(one, cost) for one in (profile, faster(profile, bandwidth, clock)))
    assert after.low_ms <= before.low_ms * (1 + 1e-12)
    assert after.high_ms <= before.high_ms * (1 + 1e-12)


@given(ANY_PROFILE, COSTS, COSTS)
def test_more_work_is_never_faster_and_a_range_is_one(profile: Profile, cost: Cost, more: Cost) -> None:
    both = Cost(
        cost.macs_int8 + more.macs_int8,
        cost.macs_fp32 + more.macs_fp32,
        cost.bytes_moved + more.bytes_moved,
        None if cost.instructions is None else cost.instructions + (more.instructions or 0),
    )
    before, after = estimate_latency_ms(profile, cost), estimate_latency_ms(profile, both)
    assert before.low_ms <= after.low_ms * (1 + 1e-12) and before.high_ms <= after.high_ms * (1 + 1e-12)
    for found in (before, after):
        assert found.low_ms <= found.roofline_low_ms <= found.roofline_high_ms <= found.high_ms
        assert (found.instructions_low_ms is None) == (cost.instructions is None)


@pytest.mark.parametrize("instructions", [None, 0])
def test_no_work_takes_no_time(instructions: int | None) -> None:
    for profile in PROFILES.values():
        found = estimate_latency_ms(profile, Cost(0, 0, 0, instructions))
        assert (found.low_ms, found.high_ms) == (0, 0)


def test_cores_that_are_not_there_are_refused() -> None:
    profile = PROFILES["flagship-2022"]
    with pytest.raises(UsageError, match="no cluster 'medium': it has prime, big, little"):
        estimate_latency_ms(profile, MODEL, "medium")
    with pytest.raises(UsageError, match="2 threads: flagship-2022's prime cluster has 1 to 1 cores"):
        estimate_latency_ms(profile, MODEL, threads=2)
    with pytest.raises(UsageError, match="below zero"):
        Cost(-1, 0, 0)


def test_the_error_is_told_against_the_same_file_chip_and_threads_only() -> None:
    profile = PROFILES["flagship-2022"]
    found = estimate_latency_ms(profile, MODEL)
    middle = (found.low_ms * found.high_ms) ** 0.5
    same = Measured("ab" * 32, "sm8450", 1, middle / 2, "Acme Phone")
    others = [
        dataclasses.replace(same, sha256="cd" * 32),
        dataclasses.replace(same, soc="SM8150"),
        dataclasses.replace(same, threads=4),
    ]
    (error,) = errors_against(found, profile, "ab" * 32, [*others, same])
    assert error["factor"] == pytest.approx(2)
    assert error["within"] == (found.low_ms <= middle / 2 <= found.high_ms)
    far = dataclasses.replace(same, p50_ms=found.high_ms * 3)
    assert errors_against(found, profile, "ab" * 32, [far])[0]["within"] is False


def test_only_real_devices_count_as_measured() -> None:
    document: dict[str, Any] = {
        "device": {"manufacturer": "Acme", "model": "Phone", "soc": "SM8450", "emulator": False},
        "sha256": "ab" * 32, "threads": 1, "samples_ms": [3.0, 5.0, 4.0],
    }  # fmt: skip
    assert measured_of([document]) == [Measured("ab" * 32, "SM8450", 1, 4.0, "Acme Phone")]
    nameless = {**document, "device": {**document["device"], "soc": None}}
    emulator = {**document, "device": {**document["device"], "emulator": True}}
    by_adb = {**document, "emulated": True, "device": {"manufacturer": "A", "model": "B", "soc": "SM8450"}}
    assert measured_of([nameless, emulator, by_adb, {**document, "samples_ms": []}]) == []


def test_every_row_of_the_table_says_estimate() -> None:
    rows = estimates(PROFILES.values(), {"onnx-int8": MODEL}, {"onnx-int8": "ab" * 32}, threads=4)
    assert len(rows) == len(PROFILES)
    assert {row["label"] for row in rows} == {"estimate"}
    json.dumps(rows, allow_nan=False)
    table = estimate_table(rows)
    assert all("estimate" in row[3] and row[-1] == "no phone" for row in table.rows)
    seen = [Measured("ab" * 32, "SM8450", 1, 1e6, "Acme Phone")]
    told = estimate_table(estimates(PROFILES.values(), {"a": MODEL}, {"a": "ab" * 32}, seen))
    assert sum("Acme Phone: 1000000.00 ms" in row[-1] and "outside" in row[-1] for row in told.rows) == 1


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            'core = "cortex-a53"',
            'core = "cortex-53"',
            "no core 'cortex-53' in [cores] (did you mean 'cortex-a53'?)",
        ),
        ("clock_ghz = 2.0", "clock_ghz = 0", "clock_ghz is 0.0, expected a number above 0"),
        ("clock_ghz = 2.0", "clock_ghz = nan", "expected a finite number"),
        ("clock_ghz = 2.0\n", "", "devices.budget-2016.clusters.big has no clock_ghz"),
        ("cores = 8", "cores = 8\nspeed = 1", "unknown key"),
        ("vector_bits = 128", "vector_bits = 100", "vector_bits is 100, expected 64, 128, 256 or 512"),
        ("bandwidth_gb_per_s = 7.46", 'bandwidth_gb_per_s = "fast"', "expected a finite number"),
        ("[devices.budget-2016.clusters.big]", "[devices.budget-2016.cluster.big]", "must hold tables"),
        ("[cores.cortex-a53]", "[kernels]\n[cores.cortex-a53]", "unknown key 'kernels'"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_line(
    tmp_path: Path, before: str, after: str, said: str
) -> None:
    text = DEVICES_FILE.read_text("utf-8")
    assert before in text
    path = tmp_path / "devices.toml"
    path.write_text(text.replace(before, after, 1), encoding="utf-8")
    with pytest.raises(UsageError) as raised:
        read_profiles(path)
    assert said in str(raised.value)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text", ["", "cores = 1", "[cores]\n[devices]", "[devices.a]\n[cores.b]", "[[cores]]\na=1"]
)
def test_a_file_without_devices_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "devices.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"must hold tables|has no"):
        read_profiles(path)
