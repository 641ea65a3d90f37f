"""The app's classifier, by the runtime's Java API and JNI library, answers as Python does with that runtime.

On this machine's JVM, with the runtime's library for Linux: the Android one of the same version is not run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from android_library import for_linux
from app_bundles import BUNDLES, copy_with, python_answers, read_goldens
from jvm import JNI, NOT_ON_LINUX, App, as_on_a_phone

from stillroom.export.android.toolchain import Toolchain, version_of_part
from stillroom.kinds import kind_of
from stillroom.task import TaskSpec

MAX_ABS_ERROR = 1e-5  # of logits: the same code on the same processor, called from another language

Answers = list[dict[str, Any]]


@pytest.fixture(scope="module")
def expected(tools: Toolchain, app_bundles: dict[str, Path]) -> dict[str, np.ndarray]:
    """Logits [texts, labels] of each bundle, by Python with the app's version of the runtime."""
    version, answers = python_answers(tools, list(app_bundles.values()))
    assert version == version_of_part("onnxruntime_python")
    return {name: np.array(found) for name, found in zip(app_bundles, answers, strict=True)}


@pytest.fixture(scope="module", params=["answers", "mapped", "dalvik"])
def answers(request: pytest.FixtureRequest, app: App, app_bundles: dict[str, Path]) -> dict[str, Any]:
    """What the app answers: models opened by path, as memory maps, and as maps by Dalvik bytecode."""
    verb = "answers" if request.param == "answers" else "mapped"
    chosen = as_on_a_phone(app) if request.param == "dalvik" else app
    return dict(zip(app_bundles, chosen.answers(verb, list(app_bundles.values())), strict=True))


def test_logits_equal_pythons_on_all_golden_texts(
    answers: dict[str, Any], expected: dict[str, np.ndarray], app_bundles: dict[str, Path]
) -> None:
    errors = {}
    for name, folder in app_bundles.items():
        goldens, found = read_goldens(folder), answers[name]["answers"]
        assert [answer["ids"] for answer in found] == [golden["input_ids"] for golden in goldens]
        assert [answer["tokens"] for answer in found] == [len(golden["input_ids"]) for golden in goldens]
        errors[name] = float(np.abs(np.array([one["logits"] for one in found]) - expected[name]).max())
        assert expected[name].std(axis=0).min() > 0.01  # they depend on the text: a mistake would show
    assert max(errors.values()) <= MAX_ABS_ERROR, errors
    assert len(errors) == len(BUNDLES)


def test_labels_and_probabilities_are_those_of_the_logits(answers: dict[str, Any]) -> None:
    said: dict[str, set[tuple[str, ...]]] = {}
    for name, made in BUNDLES.items():
        for answer in answers[name]["answers"]:
            _check_answer(made.task, answer)
        said[name] = {tuple(answer["labels"]) for answer in answers[name]["answers"]}
    # A model of random weights likes one label best; these two are not of one mind.
    assert len(said["pair"]) > 1 and len(said["multi-label"]) > 1, said


def _check_answer(task: TaskSpec, answer: dict[str, Any]) -> None:
    kind, logits = kind_of(task.kind), np.array(answer["logits"], dtype=np.float32)
    wanted = kind.answer(task.labels, logits)
    if task.kind == "regression":
        assert np.float32(answer["score"]) == wanted and not answer["labels"] and not answer["probabilities"]
        return
    assert answer["labels"] == ([wanted] if isinstance(wanted, str) else wanted) and answer["score"] is None
    assert kind.probabilities is not None
    assert list(answer["probabilities"]) == list(task.labels)
    assert list(answer["probabilities"].values()) == pytest.approx(
        kind.probabilities(logits).tolist(), abs=1e-6
    )


def test_golden_vectors_are_replayed(answers: dict[str, Any], app_bundles: dict[str, Path]) -> None:
    for name, folder in app_bundles.items():
        report = answers[name]
        assert report["difference"] is None, report["difference"]
        assert report["count"] == len(read_goldens(folder)) == 32
        assert report["version"] == "1.29.0" and "older 1.29.0" in report["notice"]  # exported by a newer one


def test_a_changed_model_is_found_by_its_golden_vectors(
    app: App, app_bundles: dict[str, Path], tmp_path: Path
) -> None:
    """Checksums in step with it: only the answers can tell."""
    goldens = read_goldens(app_bundles["fp32"])
    goldens[3]["logits"] = [value + 0.2 for value in goldens[3]["logits"]]
    folder = copy_with(app_bundles["fp32"], tmp_path / "other", {"golden.json": goldens})
    said = app.answers("answers", [folder])[0]["difference"]
    assert "golden vector 3 (Worst flight ever." in said and "0.05 apart is allowed" in said
    other = (app_bundles["multi-label"] / "model.onnx").read_bytes()
    for number, (name, model, verb, reason) in enumerate((
        ("fp32", other, "answers", "the model answered"),  # three logits in the place of two
        ("regression", other, "answers", r"model\.onnx has inputs"),
        ("fp32", b"no model", "mapped", r"onnxruntime cannot open model\.onnx"),
        ("ort", b"no model", "mapped", r"onnxruntime cannot open model\.ort"),
    )):  # fmt: skip
        file = "model.ort" if name == "ort" else "model.onnx"
        folder = copy_with(app_bundles[name], tmp_path / str(number), {file: model})
        with pytest.raises(AssertionError, match=f"ModelFailed: {reason}"):
            app.answers(verb, [folder])


def test_only_what_linux_lacks_is_taken_out_of_the_library(tools: Toolchain) -> None:
    library = (tools.onnxruntime_jni / "x86_64" / JNI).read_bytes()
    changed = for_linux(library, [NOT_ON_LINUX])
    assert len(changed) == len(library)
    different = [at for at, (one, other) in enumerate(zip(library, changed, strict=True)) if one != other]
    assert 0 < len(different) <= 5 * 8 + 1  # five entries of the dynamic section, one kind of symbol
    with pytest.raises(ValueError, match="does not refer to nothing_like_it"):
        for_linux(library, ["nothing_like_it"])
    with pytest.raises(ValueError, match="not a library"):
        for_linux(b"MZ" + library)
