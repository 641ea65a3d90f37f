"""Kept answers are the live teacher's, asked once, made again when anything differs, and mapped by all."""

from __future__ import annotations

import gc
import shutil
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from stillroom.distill import fill_mask, mlm_cache
from stillroom.distill import masked_batch as batches
from stillroom.distill.corpus import Corpus
from stillroom.distill.fill_mask import FillMaskWeights, distill_fill_mask, plain_fill_mask
from stillroom.distill.masked_batch import Masking, TeacherAnswers, live_teacher, masked_batch
from stillroom.distill.masked_lm import load_masked_lm, open_masked_source
from stillroom.distill.mlm_cache import Kept, cached_teacher
from stillroom.distill.train import TrainSettings
from stillroom.errors import UsageError

LENGTH, VOCABULARY, WIDTH = 16, 200, 32
SETTINGS = TrainSettings(epochs=4, learning_rate=3e-3, batch_size=16, seed=0, freeze_word_embeddings=False)
TWICE = Masking(variants=2)
FP16 = Kept("fp16", 0, 2.0, hidden=True)
TOP = Kept("top-k", 8, 2.0, hidden=True)
CPU = torch.device("cpu")
ROWS = np.array([40, 3, 41, 0])


@pytest.fixture(autouse=True)
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "mixed_precision", lambda: "no")  # bf16 where the machine has it


@pytest.fixture(scope="module")
def teacher(tiny_masked_lm: Path) -> Any:
    return load_masked_lm(open_masked_source(tiny_masked_lm))


@pytest.fixture(scope="module")
def corpus(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_masked_lm: Path,
    review_text: Callable[..., Path],
    review_corpus: Callable[..., Corpus],
) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    return review_corpus(folder, tiny_masked_lm, review_text(folder / "text.txt", 100), LENGTH, 0.1)


class Untouchable:
    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the teacher was asked for {name}")


def cached(teacher: Any, corpus: Corpus, folder: Path, kept: Kept = FP16, **more: Any) -> TeacherAnswers:
    given = {"teacher_sha256": "sha", "seed": 5, "masking": TWICE, **more}
    return cached_teacher(teacher, corpus=corpus, kept=kept, folder=folder, **given)


def some_logits(count: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(count, VOCABULARY, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("whole_words", [False, True])
def test_fp16_answers_are_the_live_teachers(
    teacher: Any, corpus: Corpus, tmp_path: Path, everywhere: bool, whole_words: bool
) -> None:
    masking = Masking(0.2, whole_words, "all" if everywhere else "masked", variants=2)
    answers = cached(teacher, corpus, tmp_path / "kept", masking=masking)
    losses = set()
    for epoch in (0, 1, 2, 5):
        batch = masked_batch(corpus, ROWS, 5, epoch, masking, CPU)
        soft, hidden = answers(batch)
        live, live_hidden = live_teacher(teacher, 2.0)(batch)
        logits = some_logits(len(batch.positions))
        assert soft(logits).item() == pytest.approx(live(logits).item(), rel=1e-3)
        assert hidden is not None and live_hidden is not None and hidden.dtype == torch.float16
        np.testing.assert_allclose(hidden.float().numpy(), live_hidden.numpy(), atol=2e-3)
        losses.add((epoch % 2, round(soft(logits).item(), 6)))
    assert len(losses) == 2  # two variants, and the third epoch has the first one's


def test_the_files_hold_the_models_own_logits(teacher: Any, corpus: Corpus, tmp_path: Path) -> None:
    cached(teacher, corpus, tmp_path / "kept")
    folder = tmp_path / "kept" / "variant-1"
    logits, starts = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("logits", "starts"))
    assert logits.dtype == np.float16 and len(starts) == len(corpus.train) + 1
    for row in (0, 17):
        batch = masked_batch(corpus, np.array([row]), 5, 1, TWICE, CPU)
        with torch.no_grad():
            wanted = teacher(input_ids=batch.inputs, attention_mask=torch.ones_like(batch.inputs)).logits[0]
        found = logits[starts[row] : starts[row + 1]].astype(np.float32)
        np.testing.assert_allclose(found, wanted[batch.positions].numpy(), rtol=2e-3, atol=2e-3)


def test_top_k_answers_are_the_live_teachers_top_k(teacher: Any, corpus: Corpus, tmp_path: Path) -> None:
    answers = cached(teacher, corpus, tmp_path / "kept", TOP)
    batch = masked_batch(corpus, ROWS, 5, 3, TWICE, CPU)
    with torch.no_grad():
        wanted = teacher(input_ids=batch.inputs).logits.flatten(0, 1)[batch.positions]
    logits = some_logits(len(batch.positions))
    p, q = (torch.softmax(values.double() / 2.0, -1) for values in (wanted, logits))
    best = p.argsort(dim=-1, descending=True)[:, :8]
    p, q = p.gather(-1, best), q.gather(-1, best)
    rest_p, rest_q = 1 - p.sum(-1), 1 - q.sum(-1)
    kl = (p * (p / q).log()).sum(-1) + rest_p * (rest_p / rest_q).log()
    assert answers(batch)[0](logits).item() == pytest.approx(4.0 * kl.mean().item(), rel=2e-3)


def test_with_the_whole_vocabulary_top_k_is_all(teacher: Any, corpus: Corpus, tmp_path: Path) -> None:
    answers = cached(teacher, corpus, tmp_path / "kept", replace(TOP, k=VOCABULARY))
    batch = masked_batch(corpus, ROWS, 5, 0, TWICE, CPU)
    logits = some_logits(len(batch.positions))
    live = live_teacher(teacher, 2.0)(batch)[0](logits)
    assert answers(batch)[0](logits).item() == pytest.approx(live.item(), rel=2e-3)


def inodes(folder: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_ino for path in folder.glob("variant-*/key.json")}


def test_the_second_time_nobody_is_asked(teacher: Any, corpus: Corpus, tmp_path: Path) -> None:
    for kept in (FP16, TOP):
        folder = tmp_path / kept.kind
        first = cached(teacher, corpus, folder, kept)
        again = cached(Untouchable(), corpus, folder, kept)
        batch = masked_batch(corpus, ROWS, 5, 1, TWICE, CPU)
        logits = some_logits(len(batch.positions))
        assert first(batch)[0](logits).item() == again(batch)[0](logits).item()
    # Half precision needs no temperature: the same files serve another.
    cached(Untouchable(), corpus, tmp_path / "fp16", replace(FP16, temperature=1.0))


def test_answers_are_read_from_the_files_themselves(teacher: Any, corpus: Corpus, tmp_path: Path) -> None:
    answers = cached(teacher, corpus, tmp_path)
    batch = masked_batch(corpus, ROWS, 5, 1, TWICE, CPU)
    before = answers(batch)[1]
    np.load(tmp_path / "variant-1" / "hidden.npy", mmap_mode="r+")[ROWS] = 0.5  # a copy would not notice
    after = answers(batch)[1]
    assert before is not None and after is not None and (after == 0.5).all() and not (before == 0.5).any()


@pytest.mark.parametrize(
    "more",
    [
        {"teacher_sha256": "another"},
        {"seed": 6},
        {"masking": Masking(share=0.2, variants=2)},
        {"masking": Masking(whole_words=True, variants=2)},
        {"masking": Masking(soft_positions="all", variants=2)},
        {"kept": replace(TOP, k=9)},
        {"kept": replace(TOP, temperature=1.0)},
        {"kept": replace(TOP, hidden=False)},
        {"kept": FP16},
        {"corpus_sha256": "another"},
    ],
)
def test_a_changed_key_asks_again(teacher: Any, corpus: Corpus, tmp_path: Path, more: dict[str, Any]) -> None:
    cached(teacher, corpus, tmp_path, TOP)
    changed = {"kept": TOP, "corpus": corpus, **more}
    if sha256 := changed.pop("corpus_sha256", None):
        changed["corpus"] = replace(corpus, sha256=sha256)
    with pytest.raises(AssertionError, match="the teacher was asked"):
        cached(Untouchable(), folder=tmp_path, **changed)
    cached(teacher, folder=tmp_path, **changed)
    cached(Untouchable(), folder=tmp_path, **changed)


def test_one_more_variant_keeps_the_others(teacher: Any, corpus: Corpus, tmp_path: Path) -> None:
    cached(teacher, corpus, tmp_path, TOP)
    before = inodes(tmp_path)
    cached(teacher, corpus, tmp_path, TOP, masking=Masking(variants=3))
    after = inodes(tmp_path)
    assert set(after) == {"variant-0", "variant-1", "variant-2"}
    assert all(after[name] == inode for name, inode in before.items())
    cached(Untouchable(), corpus, tmp_path, TOP, masking=Masking(variants=1))
    assert set(inodes(tmp_path)) == {"variant-0"}  # no room is taken by what nobody reads


@pytest.mark.parametrize("how", ["absent", "truncated", "empty"])
@pytest.mark.parametrize("name", ["key.json", "starts.npy", "top.npy", "ids.npy", "rest.npy", "hidden.npy"])
def test_a_damaged_variant_is_made_again(
    name: str, how: str, teacher: Any, corpus: Corpus, tmp_path: Path
) -> None:
    def answer(answers: TeacherAnswers) -> float:
        batch = masked_batch(corpus, ROWS, 5, 1, TWICE, CPU)
        return answers(batch)[0](some_logits(len(batch.positions))).item()

    wanted = answer(cached(teacher, corpus, tmp_path, TOP))
    before, path = inodes(tmp_path), tmp_path / "variant-1" / name
    content = path.read_bytes()
    path.unlink()
    if how != "absent":
        path.write_bytes(content[: len(content) // 2] if how == "truncated" else b"")
    assert answer(cached(teacher, corpus, tmp_path, TOP)) == wanted
    assert inodes(tmp_path)["variant-0"] == before["variant-0"] and path.read_bytes() == content


def test_an_interruption_costs_one_variant(
    teacher: Any, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, per_variant = 0, -(-len(corpus.train) // mlm_cache.EVALUATION_BATCH)
    real = mlm_cache.ask

    def interrupted(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > per_variant:
            raise KeyboardInterrupt
        return real(*given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(mlm_cache, "ask", interrupted)
        cached(teacher, corpus, tmp_path, TOP)
    assert [path.name for path in tmp_path.iterdir()] == ["variant-0"]
    before = inodes(tmp_path)
    cached(teacher, corpus, tmp_path, TOP)
    assert inodes(tmp_path)["variant-0"] == before["variant-0"] and len(inodes(tmp_path)) == 2


@pytest.mark.parametrize("kept", [FP16, TOP, replace(TOP, hidden=False)])
def test_the_room_is_known_before_anything_is_written(
    kept: Kept, teacher: Any, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = 2 * VOCABULARY if kept.kind == "fp16" else 6 * kept.k + 4
    needed = 0
    for variant in (0, 1):
        batch = masked_batch(corpus, np.arange(len(corpus.train)), 5, variant, TWICE, CPU)
        needed += len(batch.positions) * each + 8 * (len(corpus.train) + 1)
        needed += len(corpus.train) * LENGTH * WIDTH * 2 * kept.hidden
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed - 1))
    with pytest.raises(UsageError, match=r"MB are needed .* MB are free; .*teacher_cache_k.*\"off\""):
        cached(teacher, corpus, tmp_path / "kept", kept)
    assert not (tmp_path / "kept").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed))
    cached(teacher, corpus, tmp_path / "kept", kept)
    files = [path for path in (tmp_path / "kept").rglob("*.npy")]
    headers = 128 * len(files)
    assert sum(path.stat().st_size for path in files) == needed + headers


def test_the_answers_do_not_hold_the_teacher(tiny_masked_lm: Path, corpus: Corpus, tmp_path: Path) -> None:
    model = load_masked_lm(open_masked_source(tiny_masked_lm))
    gone = weakref.ref(model)
    answers = cached(model, corpus, tmp_path, TOP)
    del model
    gc.collect()
    assert gone() is None
    assert answers(masked_batch(corpus, ROWS, 5, 0, TWICE, CPU))[1] is not None


def test_rows_without_a_word_are_no_accident(teacher: Any, corpus: Corpus, tmp_path: Path) -> None:
    class Mostly:
        def __len__(self) -> int:
            return 40

        def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            ids = np.full((len(rows), LENGTH), 1)  # [UNK]
            ids[rows == 39, 4:7] = 60
            return ids, np.ones((len(rows), LENGTH), dtype=bool)

    mostly = replace(corpus, train=Mostly())  # type: ignore[arg-type]
    answers = cached(teacher, mostly, tmp_path)
    for rows in ([0, 1], [5, 39], [39]):
        batch = masked_batch(mostly, np.array(rows), 5, 0, TWICE, CPU)
        logits = some_logits(len(batch.positions))
        live = live_teacher(teacher, 2.0)(batch)[0](logits).item()
        assert answers(batch)[0](logits).item() == pytest.approx(live, rel=1e-3)


def test_answers_fp16_cannot_hold(tiny_masked_lm: Path, corpus: Corpus, tmp_path: Path) -> None:
    model = load_masked_lm(open_masked_source(tiny_masked_lm))
    with torch.no_grad():
        model.cls.predictions.bias.fill_(1e5)
        model.cls.predictions.decoder.bias.fill_(1e5)
    with pytest.raises(UsageError, match="larger than fp16 holds"):
        cached(model, corpus, tmp_path / "kept")
    assert not list((tmp_path / "kept").iterdir())


def test_mistakes_are_told(teacher: Any, corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='teacher_cache \'fp8\': expected "off", "fp16" or "top-k"'):
        cached(teacher, corpus, tmp_path, replace(FP16, kind="fp8"))
    with pytest.raises(UsageError, match="set mask_variants to 1 or more"):
        cached(teacher, corpus, tmp_path, masking=Masking())
    with pytest.raises(UsageError, match="teacher_cache_k 201: the teacher's vocabulary has 200 tokens"):
        cached(teacher, corpus, tmp_path, replace(TOP, k=201))


def learnt(teacher: Any, corpus: Corpus, work: Path, **more: Any) -> tuple[Any, dict[str, Any]]:
    settings = more.pop("settings", SETTINGS)
    return distill_fill_mask(teacher, corpus, settings, work, 2, masking=TWICE, **more)


def test_a_student_of_kept_answers_learns_as_from_the_live_teacher(
    teacher: Any, corpus: Corpus, tmp_path: Path
) -> None:
    live = learnt(teacher, corpus, tmp_path / "live")[1]["epoch_losses"]
    _, facts = learnt(teacher, corpus, tmp_path / "fp16", teacher_cache="fp16")
    assert facts["epoch_losses"] == pytest.approx(live, rel=5e-3)
    assert facts["teacher_cache"] == {"kind": "fp16", "k": 0, "temperature": 2.0, "hidden": True}
    top = learnt(teacher, corpus, tmp_path / "top", teacher_cache="top-k")[1]["epoch_losses"]
    assert live[-1] < 0.95 * live[0] and top[-1] < 0.95 * top[0]
    assert top[0] < live[0]  # the lower bound
    learnt(teacher, corpus, tmp_path / "short", settings=replace(SETTINGS, epochs=1), teacher_cache="top-k")
    assert set(inodes(tmp_path / "short" / "teacher-answers")) == {"variant-0"}  # the other never comes
    no_states = FillMaskWeights(cosine=0.0)
    _, facts = learnt(teacher, corpus, tmp_path / "no-states", teacher_cache="top-k", weights=no_states)
    assert not facts["teacher_cache"]["hidden"]
    assert not list((tmp_path / "no-states").rglob("hidden.npy"))


def test_masks_repeat_for_the_baseline_alike(
    teacher: Any, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[bytes]] = {"student": [], "baseline": []}
    name = ""

    def watched(*given: Any) -> Any:
        batch = masked_batch(*given)
        seen[name].append(batch.rows.tobytes() + batch.inputs.numpy().tobytes())
        return batch

    monkeypatch.setattr(fill_mask, "masked_batch", watched)
    name = "student"
    learnt(teacher, corpus, tmp_path / "a", teacher_cache="top-k")
    name = "baseline"
    plain_fill_mask(teacher, corpus, SETTINGS, tmp_path / "b", 2, masking=TWICE)
    assert seen["student"] == seen["baseline"] and len(seen["student"]) > 8
    masks = [masked_batch(corpus, ROWS, 0, epoch, TWICE, CPU).inputs for epoch in range(4)]
    assert torch.equal(masks[0], masks[2]) and torch.equal(masks[1], masks[3])
    assert not torch.equal(masks[0], masks[1])


class Interrupted(Exception):
    """Stands for a crash."""


def test_a_stopped_run_ends_bit_identical(
    teacher: Any, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    often = replace(SETTINGS, checkpoint_every_s=0.0)
    whole, facts = learnt(teacher, corpus, tmp_path / "whole", settings=often, teacher_cache="top-k")
    calls = 0

    def crash(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 7:
            raise Interrupted
        return masked_batch(*given)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(fill_mask, "masked_batch", crash)
        learnt(teacher, corpus, tmp_path / "stopped", settings=often, teacher_cache="top-k")
    monkeypatch.setattr(mlm_cache, "ask", None)  # the answers are there
    resumed, again = learnt(teacher, corpus, tmp_path / "stopped", settings=often, teacher_cache="top-k")
    assert again["epoch_losses"] == facts["epoch_losses"]
    theirs = resumed.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in whole.state_dict().items())


def test_a_checkpoint_of_other_answers_is_not_taken(
    teacher: Any, corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    often = replace(SETTINGS, epochs=1, checkpoint_every_s=0.0)
    learnt(teacher, corpus, tmp_path, settings=often, teacher_cache="top-k")
    changed: list[dict[str, Any]] = [{}, {"teacher_cache": "fp16"},
                                     {"teacher_cache": "top-k", "teacher_cache_k": 9}]  # fmt: skip
    for more in changed:
        capsys.readouterr()
        learnt(teacher, corpus, tmp_path, settings=often, **more)
        assert "going on from step" not in capsys.readouterr().err, more
