"""One winner under a budget, from made-up measurements: who wins, who came nearest, what is tried next."""

from __future__ import annotations

import random
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.errors import UsageError
from stillroom.export.search import (
    TRIM,
    Candidate,
    Found,
    Limits,
    first_round,
    further_round,
    holds,
    missed,
    nobody,
    parts_round,
    ranked,
    verdict,
)
from stillroom.scheme import PREFERENCES

INT8, STATIC, INT4 = (Candidate("onnx", scheme) for scheme in ("int8-dynamic", "int8-static", "int4"))
LIMITS = Limits(size_bytes=20e6, retention=0.99, p90_ms=15.0, rss_bytes=120e6)


def found(
    size_mb: float = 17.0, retention: float = 1.0, flips: float = 0.01, ms: float = 3.0, mb: float = 40
) -> Found:
    return Found(
        size_bytes=int(size_mb * 1e6), made=True, retention=retention, flip_rate=flips, p50_ms=ms,
        p90_ms=ms * 1.1, p90_rounds_ms=(ms, ms * 1.1), rss_bytes=int(mb * 1e6),
    )  # fmt: skip


ANY = st.builds(
    found,
    size_mb=st.floats(1, 40), retention=st.floats(0.9, 1.02), flips=st.floats(0, 0.1), ms=st.floats(0.5, 30),
    mb=st.floats(10, 200),
)  # fmt: skip
CELLS = first_round(["onnx", "executorch"])


@given(st.lists(ANY, min_size=1, max_size=len(CELLS)), st.sampled_from(PREFERENCES), st.randoms())
def test_the_first_holds_all_if_any_does_and_the_order_of_trying_is_nothing(
    values: list[Found], prefer: str, shuffle: random.Random
) -> None:
    tried = dict(zip(CELLS, values, strict=False))
    order = ranked(tried, LIMITS, prefer)
    assert sorted(order, key=str) == sorted(tried, key=str)
    holding = {it for it, one in tried.items() if holds(one, LIMITS)}
    assert set(order[: len(holding)]) == holding
    for one in values:  # against the four comparisons written out
        good = (one.size_bytes or 0) <= 20e6 and (one.retention or 0) >= 0.99
        assert holds(one, LIMITS) == (good and (one.p90_ms or 0) <= 15 and (one.rss_bytes or 0) <= 120e6)
    shuffled = list(tried.items())
    shuffle.shuffle(shuffled)
    assert ranked(dict(shuffled), LIMITS, prefer) == order
    if holding and prefer == "size":
        least = min(tried[it].size_bytes or 0 for it in holding)
        assert (tried[order[0]].size_bytes or 0) <= least * 1.02


def test_what_is_alike_in_size_is_decided_by_faith_and_then_by_length() -> None:
    short = replace(INT4, max_length=64)
    tried = {INT8: found(10.1, flips=0.004), INT4: found(10.0, flips=0.02), STATIC: found(12.0, flips=0.0)}
    assert ranked(tried, LIMITS, "size") == [INT8, INT4, STATIC]
    assert ranked(tried, LIMITS, "agreement")[0] == STATIC
    assert ranked({short: found(9.9), INT4: found(10.0)}, LIMITS, "size")[0] == INT4
    assert ranked({INT8: found(17, ms=2), INT4: found(11, ms=3)}, LIMITS, "speed")[0] == INT8


def test_a_file_that_could_not_be_measured_never_wins() -> None:
    tried = {INT8: replace(found(1.0), problem="does not answer"), INT4: Found(size_bytes=1, made=True)}
    assert ranked(tried, LIMITS, "size") == [INT4] and not holds(tried[INT4], LIMITS)
    assert verdict(tried[INT8], LIMITS) == "does not answer"
    assert verdict(tried[INT4], LIMITS) == "not measured in full"


def test_verdicts_name_the_option_the_value_and_the_limit() -> None:
    assert verdict(found(), LIMITS) == "holds all"
    assert verdict(found(21.5), LIMITS) == "21.5 MB misses --max-size-mb 20"
    assert verdict(Found(size_bytes=69_000_000), LIMITS) == "weights alone 69 MB misses --max-size-mb 20"
    assert verdict(found(retention=0.98), LIMITS) == "0.98 misses --min-retention 0.99"
    both = verdict(found(ms=20, mb=130), LIMITS)
    assert both == "22 ms misses --max-p90-ms 15; 130 MB misses --max-rss-mb 120"
    assert verdict(found(flips=0.02), Limits(flip_rate=0.01)) == "0.02 misses --max-flips 0.01"


def test_nobody_names_what_nothing_met_and_the_nearest_miss() -> None:
    tried = {INT8: found(17.5), INT4: found(11.5), STATIC: Found(size_bytes=17_700_000, made=True)}
    line = nobody(tried, replace(LIMITS, size_bytes=11e6), "size")
    assert line.startswith("nothing met --max-size-mb 11: the best was 11.5 MB; nearest miss: onnx-int4, ")
    apart = {INT8: found(25, retention=1.0), INT4: found(11, retention=0.97)}
    assert "no file met all limits at once; nearest miss: onnx-int4" in nobody(apart, LIMITS, "size")
    assert nobody({INT8: Found(problem="x")}, LIMITS, "size").startswith("none of 1 files could be measured")


def test_rounds() -> None:
    assert {it.target for it in CELLS} == {"onnx", "executorch"} and len(CELLS) == 9
    with pytest.raises(UsageError, match="--targets coreml: expected some of onnx"):
        first_round(["coreml"])
    tried = {INT8: found(17), INT4: found(11), STATIC: found(17.5, flips=0.05)}
    wanted = further_round(tried, LIMITS, "size", "vocabulary", (TRIM, 8000))
    assert [it.name for it in wanted] == [
        "onnx-int4+vocabulary-trim", "onnx-int4+vocabulary-8000",
    ]  # fmt: skip
    assert not further_round({**tried, **dict.fromkeys(wanted, found())}, LIMITS, "size", "layers", ())


def test_parts_are_left_in_fp32_only_where_that_can_help() -> None:
    groups = ("layer 0 ffn down", "layer 1 qkv")
    faithful = {STATIC: found()}

    def unasked() -> tuple[str, ...]:
        raise AssertionError("sensitivity costs time and was not needed")

    assert parts_round(faithful, LIMITS, "size", unasked) == []
    assert parts_round({INT8: found()}, LIMITS, "agreement", unasked) == []
    names = [it.name for it in parts_round({STATIC: found(retention=0.9)}, LIMITS, "size", lambda: groups)]
    assert names == [
        "onnx-int8-static+fp32-layer-0-ffn-down", "onnx-int8-static+fp32-layer-0-ffn-down+fp32-layer-1-qkv"
    ]  # fmt: skip
    assert len(parts_round(faithful, LIMITS, "agreement", lambda: groups)) == 2


def test_names_are_unique_and_models_are_shared() -> None:
    one = Candidate("onnx", "int8-static", ("head",), 8000, 64, 2)
    assert one.name == "onnx-int8-static+fp32-head+vocabulary-8000+length-64+layers-2"
    assert one.model == Candidate("ort", "fp32", (), 8000, 64, 2).model != INT8.model
    assert missed(found(21.0), Limits()) == [] and holds(found(), Limits())
    assert set(asdict(LIMITS)) == {"size_bytes", "retention", "flip_rate", "p90_ms", "rss_bytes"}
