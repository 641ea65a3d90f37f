"""Tiny random models of every family, and their exports: made once, shared by all tests of this folder.

A freshly initialized model attends to all tokens about equally and has biases of zero, so that a wrong mask,
a wrong scale or a lost bias would hardly show. Every weight here is drawn anew, large enough to show them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from stillroom.artifact import Artifact
from stillroom.export import export
from stillroom.export.golden import GOLDEN_TEXTS
from stillroom.export.options import ExportOptions
from stillroom.student import input_names, save_student
from stillroom.task import TaskSpec

MAX_LENGTH = 80  # above the longest fixed length verify cuts to (64), so that every one of them is used
LAYERS, HIDDEN, HEADS = 2, 64, 4
VOCABULARY = 5000  # rows: embeddings are nine tenths of the model, as in a small multilingual one
WEIGHT_STD = 0.2

TEXTS = (
    "the crew was wonderful and the flight was on time",
    "worst flight ever",
    "",
    "a",
    "nobody said sorry for two hours, not once",
    "great great great great great",
    "UPPER case and café naïve résumé",
    "not bad at all, i would fly again !",
    "这家餐厅的服务非常好。",
    "این هتل عالی بود",
    "seats were small; the food was cold; the coffee was warm, the staff was kind " * 2,
    "the quick brown fox jumps over the lazy dog " * 30,
)


def characters() -> list[str]:
    """Every character of the texts, so that their words are cut into pieces and not all unknown."""
    return sorted({mark for text in (*TEXTS, *GOLDEN_TEXTS) for mark in text.lower() if not mark.isspace()})


def word_pieces() -> list[str]:
    """A WordPiece vocabulary of VOCABULARY entries."""
    common = ["the", "was", "flight", "crew", "great", "bad", "not", "love", "##ing", "##ed", "##s", "link"]
    found = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *common]
    marks = [mark for mark in characters() if mark not in found]
    found += [*marks, *(f"##{mark}" for mark in marks if f"##{mark}" not in found)]
    return found + [f"filler{index}" for index in range(VOCABULARY - len(found))]


def unigram_pieces() -> list[tuple[str, float]]:
    """A Unigram vocabulary of VOCABULARY entries, special tokens where XLM-RoBERTa has them."""
    common = ["▁", "▁the", "▁was", "▁flight", "▁great", "▁not", "ing", "ed"]
    found = [(piece, 0.0) for piece in ("<s>", "<pad>", "</s>", "<unk>")]
    found += [(piece, -2.0) for piece in common]
    known = {piece for piece, _ in found}
    found += [(mark, -6.0) for mark in [*characters(), *"UCSABDEHLPVOTGRINKWM"] if mark not in known]
    fillers = VOCABULARY - len(found) - 1
    return [*found, *((f"▁filler{index}", -9.0) for index in range(fillers)), ("<mask>", 0.0)]


def make_tokenizer(family: str) -> Any:
    """The Hugging Face tokenizer of a family's model."""
    if family in ("bert", "distilbert"):
        return transformers.BertTokenizer(
            vocab={piece: index for index, piece in enumerate(word_pieces())}, do_lower_case=True
        )
    return transformers.XLMRobertaTokenizer(vocab=unigram_pieces())


def make_model(family: str, labels: int = 2, activation: str = "gelu", seed: int = 0, **config: Any) -> Any:
    """A Hugging Face classifier in eval mode with every weight random; attention in its plainest form."""
    if family == "distilbert":
        sizes: dict[str, Any] = {
            "dim": HIDDEN, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": 2 * HIDDEN,
            "activation": activation, "max_position_embeddings": MAX_LENGTH, "pad_token_id": 0,
        }  # fmt: skip
    else:
        roberta, types = family != "bert", 1 if family == "xlm-roberta" else 2
        sizes = {
            "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
            "intermediate_size": 2 * HIDDEN, "hidden_act": activation, "type_vocab_size": types,
            "max_position_embeddings": MAX_LENGTH + (2 if roberta else 0), "pad_token_id": int(roberta),
        }  # fmt: skip
    settings = {"vocab_size": VOCABULARY, "num_labels": labels, **sizes, **config}
    model = transformers.AutoModelForSequenceClassification.from_config(
        transformers.AutoConfig.for_model(family, **settings), attn_implementation="eager"
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(0, WEIGHT_STD, generator=generator)
            if name.lower().endswith(("layernorm.weight", "layer_norm.weight")):
                weight.add_(1)
    return model.eval()


def make_folder(
    folder: Path, family: str, labels: tuple[str, ...] = ("negative", "positive"), pair: bool = False,
    seed: int = 0,
) -> Path:  # fmt: skip
    """A model folder as training leaves it behind."""
    model, tokenizer = make_model(family, len(labels), seed=seed), make_tokenizer(family)
    tokenizer.save_pretrained(folder)
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    task = TaskSpec(labels, MAX_LENGTH, input_names(model.config, pair=pair), pair=pair)
    save_student(folder, model, text, task, {"teacher": {"model": "random"}, "seed": seed})
    return folder


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """(family, labels=, pair=, seed=) -> a model folder. Shared: copy it before changing it."""

    @functools.cache
    def make(family: str, **options: Any) -> Path:
        return make_folder(tmp_path_factory.mktemp("model") / family, family, **options)

    return make


@pytest.fixture(scope="session")
def exported(
    model_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Artifact]:
    """(family, scheme, pair=) -> its ONNX artifact. Shared: copy its folder before changing it.

    The one of pairs keeps the whole last layer, so that both ways of exporting are covered by few exports.
    """

    @functools.cache
    def make(family: str, scheme: str, pair: bool = False) -> Artifact:
        folder = tmp_path_factory.mktemp("artifact") / f"{family}-{scheme}"
        options = ExportOptions(shorten=not pair)
        return export(model_folder(family, pair=pair), "onnx", scheme, folder, options)

    return make


@pytest.fixture(scope="session")
def reference() -> Callable[..., np.ndarray]:
    """(model folder, **inputs int64 [batch, length]) -> logits as transformers computes them, eager, fp32."""

    @functools.cache
    def load(folder: Path) -> Any:
        return transformers.AutoModelForSequenceClassification.from_pretrained(
            folder, local_files_only=True, attn_implementation="eager", dtype=torch.float32
        ).eval()

    def run(folder: Path, **inputs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
            return np.asarray(load(folder)(**tensors).logits.numpy())

    return run


def random_batch(
    lengths: Sequence[int], inputs: Sequence[str], pad_id: int, seed: int = 0
) -> dict[str, np.ndarray]:
    """Rows of random ids (no special ones), padded on the right to the longest; inputs int64 by name."""
    generator = np.random.default_rng(seed)
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    arrays = {
        "input_ids": np.where(mask, generator.integers(5, VOCABULARY - 1, mask.shape), pad_id),
        "attention_mask": mask,
        "token_type_ids": generator.integers(0, 2, mask.shape) * mask,
    }
    return {name: arrays[name] for name in inputs}


@pytest.fixture(scope="session")
def batch_of() -> Callable[..., dict[str, np.ndarray]]:
    return random_batch


@pytest.fixture(scope="session")
def texts() -> tuple[str, ...]:
    return TEXTS


@pytest.fixture(scope="session")
def new_model() -> Callable[..., Any]:
    return make_model


@pytest.fixture(scope="session")
def tokenizer_of() -> Callable[[str], Any]:
    return functools.cache(make_tokenizer)
