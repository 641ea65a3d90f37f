"""Parity checks: a good artifact passes, and each kind of damage is found where it shows, with its text."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from stillroom.artifact import Artifact, load_artifact, save_artifact
from stillroom.export.verify import (
    SAMPLE_ROWS,
    Feeding,
    Verification,
    allowed_flips,
    failure,
    feedings,
    golden_feedings,
    verify,
    within,
)
from stillroom.numerics import Agreement
from stillroom.scheme import SCHEMES
from stillroom.student import load_student
from stillroom.text import Row
from stillroom.tokens import Tokens, encode_rows, load_tokenizer

MAX_LENGTH = 80
INPUTS = ("input_ids", "attention_mask")
FP32 = {"max_abs_error": 1e-4, "decided_flip_rate": 0.0}
CUTS = [f"cut or padded to {length} tokens" for length in (1, 2, 17, 64, MAX_LENGTH)]
FED = ["test split, one by one", *CUTS, "three at a time, padded", "sample, unpadded", "with token_type_ids",
       "random token ids"]  # fmt: skip
NAMES = [*FED, "padded against unpadded"]

Reference = Callable[..., np.ndarray]


def encoded(model: Path, texts: Sequence[str]) -> Tokens:
    rows = [Row(text, None, "negative", 1.0, f"test:{at}") for at, text in enumerate(texts)]
    return encode_rows(load_tokenizer(model, MAX_LENGTH), rows, load_student(model).task, pad_id=0)


def row_inputs(tokens: Tokens, rows: Sequence[int], width: int) -> dict[str, np.ndarray]:
    """Rows padded or cut to a width, written out plainly: padded_inputs must not be its own judge."""
    ids, mask = [], []
    for row in rows:
        own = tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]].tolist()[:width]
        ids.append(own + [0] * (width - len(own)))
        mask.append([1] * len(own) + [0] * (width - len(own)))
    return {"input_ids": np.array(ids), "attention_mask": np.array(mask)}


def logits_one_by_one(model: Path, tokens: Tokens, reference: Reference) -> np.ndarray:
    return np.concatenate(
        [
            reference(model, **row_inputs(tokens, [row], int(tokens.lengths[row])))
            for row in range(len(tokens))
        ]
    )


@pytest.fixture(scope="module")
def bert(model_folder: Callable[..., Path]) -> Path:
    return model_folder("bert")


@pytest.fixture(scope="module")
def tokens(bert: Path, texts: tuple[str, ...]) -> Tokens:
    return encoded(bert, texts)


@pytest.fixture(scope="module")
def fed(bert: Path, tokens: Tokens, texts: tuple[str, ...], reference: Reference) -> tuple[Feeding, ...]:
    return feedings(bert, load_student(bert).task, tokens, texts, logits_one_by_one(bert, tokens, reference))


@pytest.fixture
def damaged(exported: Callable[..., Artifact], tmp_path: Path) -> Callable[..., Artifact]:
    """(change of an ONNX graph) -> bert's fp32 artifact with that change, described as if it were right."""

    def make(change: Callable[[onnx.GraphProto], None]) -> Artifact:
        good = exported("bert", "fp32")
        model = onnx.load(good.path)
        change(model.graph)
        content = model.SerializeToString()
        (tmp_path / "model.onnx").write_bytes(content)
        checksum = hashlib.sha256(content).hexdigest()
        save_artifact(replace(good, folder=tmp_path, size_bytes=len(content), sha256=checksum))
        return load_artifact(tmp_path)

    return make


def rewrite(graph: onnx.GraphProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    for tensor in graph.initializer:
        if tensor.name == name:
            changed = change(numpy_helper.to_array(tensor).copy())
            tensor.CopyFrom(numpy_helper.from_array(changed, name))
            return
    raise AssertionError(f"no initializer {name}")


def initializer_of_shape(graph: onnx.GraphProto, *shape: int) -> str:
    return next(tensor.name for tensor in graph.initializer if tuple(tensor.dims) == shape)


def scale_a_weight(graph: onnx.GraphProto) -> None:
    rewrite(graph, initializer_of_shape(graph, 64, 128), lambda weight: weight * np.float32(1.5))


def put_a_nan(graph: onnx.GraphProto) -> None:
    def change(weight: np.ndarray) -> np.ndarray:
        weight[3, 5] = np.nan
        return weight

    rewrite(graph, initializer_of_shape(graph, 64, 128), change)


def swap_outputs(graph: onnx.GraphProto) -> None:
    last = next(node for node in graph.node if "logits" in node.output)
    last.output[0] = "unswapped"
    graph.initializer.append(numpy_helper.from_array(np.array([1, 0]), "swapped_order"))
    graph.node.append(onnx.helper.make_node("Gather", ["unswapped", "swapped_order"], ["logits"], axis=1))


def unmask(graph: onnx.GraphProto) -> None:
    """What a padded token adds to a score becomes 0, so that it is attended to like any other."""
    name = next(
        tensor.name
        for tensor in graph.initializer
        if not tensor.dims and numpy_helper.to_array(tensor) == -10000.0
    )
    rewrite(graph, name, np.zeros_like)


# --- a good artifact


@pytest.mark.parametrize("scheme", ["fp32", "int8-dynamic"])
def test_a_good_artifact_passes(
    exported: Callable[..., Artifact], bert: Path, tokens: Tokens, fed: tuple[Feeding, ...],
    texts: tuple[str, ...], reference: Reference, scheme: str,
) -> None:  # fmt: skip
    artifact = exported("bert", scheme)
    found = verify("student", artifact, fed, threads=1)
    assert [case.name for case in found.cases] == NAMES
    assert all(case.passed for case in found.cases)
    assert failure(found, artifact.tolerance) == ""
    ours = [case for case in found.cases if case.name != "random token ids"]
    assert all(case.agreement.rows == len(texts) for case in ours)
    assert all(case.worst_text in texts for case in ours)
    wanted = logits_one_by_one(bert, tokens, reference)
    assert found.logits.shape == wanted.shape == (len(texts), 2)
    error = float(np.abs(found.logits - wanted).max())
    assert found.cases[0].agreement.max_abs_error == pytest.approx(error, abs=1e-9)
    assert 0 < error <= artifact.tolerance["max_abs_error"]
    facts = json.loads(json.dumps(found.facts()))
    assert [fact["name"] for fact in facts] == NAMES
    assert {fact["artifact"] for fact in facts} == {"student"}
    assert facts[0]["agreement"]["max_abs_error"] == found.cases[0].agreement.max_abs_error


# --- damage


def test_a_scaled_weight_is_found(
    damaged: Callable[..., Artifact], tokens: Tokens, fed: tuple[Feeding, ...], texts: tuple[str, ...]
) -> None:
    artifact = damaged(scale_a_weight)
    found = verify("student-fp32", artifact, fed, threads=1)
    assert not any(case.passed for case in found.cases[:-1])
    errors = np.abs(found.logits - fed[0].wanted).max(axis=1)
    message = failure(found, artifact.tolerance)
    assert message.startswith(f"student-fp32: {NAMES[0]}: max abs error {errors.max():.4g} (allowed 0.0001)")
    if found.cases[0].agreement.decided_flip_rate == 0:
        assert message.endswith(f"worst text: {texts[int(errors.argmax())]!r}")
    assert "\n" not in message


def test_swapped_outputs_are_found_and_a_decided_text_is_named(
    damaged: Callable[..., Artifact], tokens: Tokens, fed: tuple[Feeding, ...], texts: tuple[str, ...]
) -> None:
    artifact = damaged(swap_outputs)
    found = verify("student-fp32", artifact, fed, threads=1)
    assert np.abs(found.logits[:, ::-1] - fed[0].wanted).max() <= 1e-4  # the damage is the one meant
    assert not any(case.passed for case in found.cases[:-1])  # it agrees with itself
    first = fed[0].wanted
    probability = 1 / (1 + np.exp(-np.abs(first[:, 1] - first[:, 0])))
    decided = probability - (1 - probability) >= 0.1
    assert found.cases[0].agreement.flip_rate == 1.0
    assert found.cases[0].agreement.decided_flip_rate == pytest.approx(decided.mean())
    gaps = np.where(decided, np.abs(first[:, 1] - first[:, 0]), -1.0)
    message = failure(found, artifact.tolerance)
    assert NAMES[0] in message
    assert f"decided label flips {decided.mean():.2%} (allowed 0.00%, in {len(tokens)} rows 0)" in message
    assert message.endswith(f"worst text: {texts[int(gaps.argmax())]!r}")


def test_swapped_outputs_are_found_by_flips_where_errors_are_tolerated(
    damaged: Callable[..., Artifact], tokens: Tokens, fed: tuple[Feeding, ...], texts: tuple[str, ...]
) -> None:
    tolerance = {"max_abs_error": 1e9, "decided_flip_rate": 0.01}
    artifact = replace(damaged(swap_outputs), tolerance=tolerance)
    found = verify("student-int8", artifact, fed, threads=1)
    assert not found.cases[0].passed
    assert failure(found, tolerance).startswith(f"student-int8: {NAMES[0]}: ")
    assert "(allowed 1.00%, in " in failure(found, tolerance)


def test_a_nan_is_found(
    damaged: Callable[..., Artifact], tokens: Tokens, fed: tuple[Feeding, ...], texts: tuple[str, ...]
) -> None:
    tolerance = {"max_abs_error": 1e9, "decided_flip_rate": 0.5}
    artifact = replace(damaged(put_a_nan), tolerance=tolerance)
    found = verify("student-fp32", artifact, fed, threads=1)
    assert np.isnan(found.logits).any()
    assert not any(case.passed for case in found.cases)
    assert found.cases[0].agreement.max_abs_error == math.inf
    message = failure(found, tolerance)
    assert message.startswith(f"student-fp32: {NAMES[0]}: max abs error inf (allowed 1e+09)")
    assert "decided label flips 100.00% (allowed 50.00%, in " in message


def test_damage_that_only_padding_shows_is_named_by_its_case(
    damaged: Callable[..., Artifact], tokens: Tokens, fed: tuple[Feeding, ...], texts: tuple[str, ...]
) -> None:
    artifact = damaged(unmask)
    found = verify("student-fp32", artifact, fed, threads=1)
    passed = {case.name: case.passed for case in found.cases}
    # No row is shorter than two tokens: nothing is padded in the first three, nor where it says so.
    unpadded = (NAMES[0], CUTS[0], CUTS[1], "sample, unpadded", "with token_type_ids", "random token ids")
    assert passed == {name: name in unpadded for name in NAMES}
    message = failure(found, artifact.tolerance)
    assert message.startswith(f"student-fp32: {CUTS[2]}: max abs error ")
    worst = found.cases[3].worst_text
    assert message.endswith(f"worst text: {worst!r}")
    assert tokens.lengths[texts.index(worst)] < 17  # a longer one was not padded, so it is not at fault


def test_the_worst_text_is_shown_cut(damaged: Callable[..., Artifact], fed: tuple[Feeding, ...]) -> None:
    artifact = damaged(scale_a_weight)
    long = [replace(feeding, texts=("z" * 5000,) * len(feeding.texts)) for feeding in fed]
    found = verify("student", artifact, long, threads=1)
    assert failure(found, artifact.tolerance).endswith(f": {'z' * 200!r}")


def test_nothing_failed_gives_nothing_to_say() -> None:
    assert failure(Verification("student", (), np.zeros((0, 2))), FP32) == ""


# --- within


def agreement(rows: int, flips: int, error: float = 0.0) -> Agreement:
    return Agreement(rows, error, 1.0, flips / rows, flips / rows, 0)


@pytest.mark.parametrize(
    ("rows", "rate", "wanted"),
    [
        (1, 0.01, 0),
        (12, 0.01, 1),
        (64, 0.01, 3),
        (2007, 0.01, 31),
        (9, 0.0, 0),
        (10_000, 0.0, 0),
        (7, 1.0, 7),
    ],
)
def test_allowed_flips(rows: int, rate: float, wanted: int) -> None:
    tolerance = {"max_abs_error": 1.0, "decided_flip_rate": rate}
    assert allowed_flips(rate, rows) == wanted
    assert within(agreement(rows, wanted), tolerance)
    assert wanted == rows or not within(agreement(rows, wanted + 1), tolerance)


@given(rows=st.integers(1, 300), percent=st.integers(1, 99))
def test_allowed_flips_are_the_binomial_quantile(rows: int, percent: int) -> None:
    rate, below = Fraction(percent, 100), Fraction(0)
    for flips in range(rows + 1):
        below += math.comb(rows, flips) * rate**flips * (1 - rate) ** (rows - flips)
        if below >= Fraction(99, 100):
            break
    assert allowed_flips(percent / 100, rows) == flips


@given(rows=st.integers(1000, 1_000_000))
def test_many_rows_allow_hardly_more_than_the_rate(rows: int) -> None:
    deviation = math.sqrt(rows * 0.01 * 0.99)
    assert 2.2 * deviation < allowed_flips(0.01, rows) - 0.01 * rows < 2.6 * deviation + 1


@pytest.mark.parametrize(
    ("error", "wanted"), [(0.0, True), (1e-4, True), (1.001e-4, False), (math.inf, False), (math.nan, False)]
)
def test_the_error_bound_is_included(error: float, wanted: bool) -> None:
    assert within(agreement(10, 0, error), FP32) is wanted


def test_the_artifact_carries_the_tolerance_of_its_scheme(exported: Callable[..., Artifact]) -> None:
    assert exported("bert", "fp32").tolerance == FP32
    assert within(agreement(50, 0, 1e-4), exported("bert", "fp32").tolerance)
    assert SCHEMES["fp32"].tolerance.max_abs_error == FP32["max_abs_error"]


# --- feedings


def many_texts() -> list[str]:
    """More rows than are sampled, of 2 to 80 tokens."""
    return [" ".join(["the flight was great", *["crew"] * (row % 90)][: 1 + row % 91]) for row in range(100)]


def test_every_way_of_feeding(bert: Path, reference: Reference) -> None:
    tokens, texts = encoded(bert, many_texts()), [f"row {row}" for row in range(100)]
    given_logits = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    found = {fed.name: fed for fed in feedings(bert, load_student(bert).task, tokens, texts, given_logits)}
    assert list(found) == FED

    plain = found["test split, one by one"]
    assert plain.texts == tuple(texts)
    assert all(same_inputs(plain.batches[row], row_inputs(tokens, [row], width))
               for row, width in enumerate(tokens.lengths))  # fmt: skip
    assert plain.wanted is given_logits

    sampled = [texts.index(text) for text in found["sample, unpadded"].texts]
    assert len(sampled) == len(set(sampled)) == SAMPLE_ROWS == 64
    assert sampled == sorted(sampled)
    assert (sampled[0], sampled[-1]) == (0, 99)
    for name, width in zip(CUTS, (1, 2, 17, 64, MAX_LENGTH), strict=True):
        inputs = [row_inputs(tokens, [row], width) for row in sampled]
        assert all(map(same_inputs, found[name].batches, inputs))
        wanted = np.concatenate([reference(bert, **one) for one in inputs])
        assert found[name].wanted.shape == (64, 2)
        assert np.abs(found[name].wanted - wanted).max() <= 1e-5

    threes = found["three at a time, padded"]
    groups = [sampled[at : at + 3] for at in range(0, 64, 3)]
    inputs = [row_inputs(tokens, rows, int(tokens.lengths[rows].max())) for rows in groups]
    assert all(map(same_inputs, threes.batches, inputs)) and len(threes.batches) == 22
    assert np.abs(threes.wanted - np.concatenate([reference(bert, **one) for one in inputs])).max() <= 1e-5
    assert any(0 in batch[1] for batch in threes.batches)  # padding happens

    other = found["with token_type_ids"]
    assert all(len(batch) == 3 and not batch[2].any() for batch in other.batches)
    assert np.array_equal(other.wanted, found["sample, unpadded"].wanted)

    noise = found["random token ids"]
    assert all(mask.all() and ids.max() <= tokens.ids.max() for ids, mask in noise.batches)
    assert not any((ids == tokens.pad_id).any() for ids, _ in noise.batches)
    assert {batch[0].shape[1] for batch in noise.batches} >= {2, MAX_LENGTH}


def test_a_model_of_pairs_is_fed_without_its_token_types(
    model_folder: Callable[..., Path], reference: Reference
) -> None:
    folder = model_folder("bert", pair=True)
    task = load_student(folder).task
    rows = [Row("the crew", "was great", ""), Row("a", "not bad at all", "")]
    tokens = encode_rows(load_tokenizer(folder, MAX_LENGTH), rows, task, pad_id=0)
    found = {fed.name: fed for fed in feedings(folder, task, tokens, ["one", "two"])}
    given, whole = found["without token_type_ids"], found["sample, unpadded"]
    assert [len(batch) for batch in given.batches] == [2, 2] and whole.batches[0][2].any()
    as_one_text = [dict(zip(task.inputs, (ids, mask, 0 * ids), strict=True)) for ids, mask in given.batches]
    wanted = np.concatenate([reference(folder, **one) for one in as_one_text])
    assert np.abs(given.wanted - wanted).max() <= 1e-5 < np.abs(given.wanted - whole.wanted).max()


def test_golden_texts_are_fed_in_ways_that_change_nothing(bert: Path) -> None:
    texts = ["a", "the flight was great", "not bad " * 10]
    tokens = encoded(bert, texts)
    assert 17 < tokens.lengths.max() < 64  # cutting would change an answer: no way of feeding does
    logits = np.zeros((3, 2), np.float32)
    found = golden_feedings(load_student(bert).task, tokens, texts, logits)
    names = ["sample, unpadded", *CUTS[3:], "three at a time, padded", "with token_type_ids"]
    assert [fed.name for fed in found] == names
    assert all(fed.wanted is logits and fed.texts == tuple(texts) for fed in found)
    assert all(same_inputs(found[1].batches[row], row_inputs(tokens, [row], 64)) for row in range(3))


def same_inputs(batch: Sequence[np.ndarray], wanted: dict[str, np.ndarray]) -> bool:
    return all(map(np.array_equal, batch, wanted.values()))


def test_a_split_smaller_than_the_sample_is_used_whole(bert: Path) -> None:
    texts = ["a", "the flight was great"]
    found = feedings(bert, load_student(bert).task, encoded(bert, texts), texts, np.zeros((2, 2), np.float32))
    assert [feeding.name for feeding in found] == FED
    assert all(feeding.texts == tuple(texts) for feeding in found[:-1])
    assert [len(feeding.batches) for feeding in found] == [2, *(2 for _ in CUTS), 1, 2, 2, 16]


@pytest.mark.parametrize(
    ("max_length", "wanted"), [(2, [1, 2]), (17, [1, 2, 17]), (64, [1, 2, 17, 64]), (65, [1, 2, 17, 64, 65])]
)
def test_lengths_stop_at_the_longest_input(bert: Path, max_length: int, wanted: list[int]) -> None:
    task = replace(load_student(bert).task, max_length=max_length)
    found = feedings(bert, task, encoded(bert, ["a"]), ["a"], np.zeros((1, 2), np.float32))
    assert [fed.batches[0][0].shape[1] for fed in found if fed.name.startswith("cut")] == wanted


def test_without_known_logits_the_source_is_asked(bert: Path, reference: Reference) -> None:
    tokens = encoded(bert, ["a", "the flight was great"])
    found = feedings(bert, load_student(bert).task, tokens, ["a", "b"])
    assert np.abs(found[0].wanted - logits_one_by_one(bert, tokens, reference)).max() <= 1e-5


def test_a_file_is_not_fed_what_it_cannot_take(
    exported: Callable[..., Artifact], fed: tuple[Feeding, ...]
) -> None:
    artifact = exported("bert", "fp32")
    assert all(feeding.fits(artifact) for feeding in fed)
    one_row = replace(artifact, target="executorch")
    assert [feeding.name for feeding in fed if not feeding.fits(one_row)] == ["three at a time, padded"]
    short = replace(artifact, lengths=(17,))
    assert [feeding.name for feeding in fed[1:6] if feeding.fits(short)] == CUTS[:3]
