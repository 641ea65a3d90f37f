"""The pair that is one and the same file."""

from __future__ import annotations

import pytest

from stillroom.benchmarks.measure import Measurement, Subject
from stillroom.benchmarks.noise import AGAIN, floor_at, noise_facts, with_again


def measurement(name: str, by_round: list[float]) -> Measurement:
    samples = tuple(ms for ms in by_round for _ in range(3))
    rounds = (1.0,) * len(by_round)
    bytes_each = (1,) * len(by_round)
    return Measurement(
        name, rounds, rounds, rounds, {8: samples}, bytes_each, bytes_each, "warm", {8: rounds}, None
    )


def test_the_last_subject_takes_part_twice() -> None:
    subjects = [Subject(name, "onnx", name, ("input_ids",)) for name in "ab"]
    again = with_again(subjects)
    assert [one.name for one in again] == ["a", "b", AGAIN] and again[2].folder == "b"
    assert with_again([]) == []


def test_the_pair_and_the_floor_are_told_per_length() -> None:
    measured = {
        name: measurement(name, by_round)
        for name, by_round in (("a", [4.0, 4.1, 3.9]), ("b", [2.0, 2.1, 2.0]), (AGAIN, [2.1, 2.1, 2.2]))
    }
    found = noise_facts(measured, "b")
    assert found is not None
    (entry,) = found["by_length"]
    assert entry["p50_ms"] == [2.0, 2.1] and entry["difference"] == pytest.approx(0.05)
    assert entry["floor"] >= entry["difference"] and found["rounds"] == 3
    assert floor_at({"noise": found}, 8) == entry["floor"]
    assert floor_at({"noise": found}, 9) == floor_at({"noise": None}, 8) == floor_at({}, 8) == 0


def test_without_one_of_the_pair_there_is_no_noise() -> None:
    assert noise_facts({"b": measurement("b", [1.0])}, "b") is None
