"""Option of target "onnx": text.onnx beside model.onnx, the same model with its tokenizer in the graph.

For an app that would rather not tokenize; it needs onnxruntime-extensions beside onnxruntime.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from stillroom.artifact import Artifact
from stillroom.errors import CheckFailed, UsageError
from stillroom.export import onnx_graph
from stillroom.export.golden import golden_tolerance, golden_vectors
from stillroom.extras import require
from stillroom.files import write_atomic
from stillroom.tokens import check_text, load_tokenizer

TextPredict = Callable[..., np.ndarray]  # (text), or (text, pair) -> logits float32 [1, labels]

FILE = "text.onnx"


def write_text_model(artifact: Artifact, model_folder: Path) -> Path:
    """Write text.onnx beside an artifact of target onnx, and compare the two on the golden texts.

    Its input is text, string [1], or [2] where the task is of pairs; its output logits, float32 [1, labels].
    Raises UsageError for an artifact of another target or of fixed lengths, and for a tokenizer whose answers
    the graph could not give; CheckFailed when the two answer otherwise.
    """
    if artifact.target != "onnx":
        raise UsageError(f"a file that takes text is made of an onnx artifact, this one is {artifact.target}")
    if artifact.lengths:
        raise UsageError(f"a file that takes text cannot be of fixed length {artifact.lengths[0]}")
    require("onnx", "onnxruntime_extensions")
    import onnx

    from stillroom.export.text_graph import add_tokenizer

    tokenizer = load_tokenizer(model_folder, artifact.task.max_length)
    whole, path = add_tokenizer(onnx.load(artifact.path), tokenizer, artifact.task), artifact.folder / FILE
    write_atomic(path, whole.SerializeToString())
    goldens = golden_vectors(tokenizer, onnx_graph.load(artifact.folder, 1), artifact.task)
    predict, allowed = load_text_predictor(path, 1), golden_tolerance(artifact.task, goldens)
    for golden in goldens:
        texts = (golden["text"], golden["pair"]) if artifact.task.pair else (golden["text"],)
        error = float(np.abs(predict(*texts)[0] - np.array(golden["logits"])).max())
        if not error <= allowed:
            raise CheckFailed(
                f"{FILE} answers {error:.4g} beside {artifact.file} (allowed {allowed:g}) to "
                f"{texts[0][:80]!r}"
            )
    return path


def load_text_predictor(path: Path, threads: int) -> TextPredict:
    """Open a text.onnx: text, or two texts of a pair -> logits float32 [1, labels].

    Raises UsageError when it is no such file; the function, when it is given one text for two or the reverse,
    or a text that is not valid Unicode.
    """
    require("onnxruntime", "onnxruntime_extensions")
    from onnxruntime_extensions import get_library_path

    session = onnx_graph.new_session(path, threads, get_library_path())
    inputs = [(entry.name, entry.type) for entry in session.get_inputs()]
    if inputs != [("text", "tensor(string)")]:
        names = ", ".join(name for name, _ in inputs)
        raise UsageError(f"{path} takes {names}: wanted a file that takes text")
    wanted = int(session.get_inputs()[0].shape[0])

    def predict(text: str, pair: str | None = None) -> np.ndarray:
        texts = [text] if pair is None else [text, pair]
        if len(texts) != wanted:
            raise UsageError(f"this file classifies {'two texts' if wanted == 2 else 'one text'}")
        array = np.array([check_text(one) for one in texts], dtype=object)
        return np.asarray(session.run(["logits"], {"text": array})[0])

    return predict
