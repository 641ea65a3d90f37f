"""Tiny real models, made offline in a second, and made-up reviews that can be learned from."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

# The hub client reads this once, when it is imported: no fixture would be early enough.
os.environ["HF_HUB_OFFLINE"] = "1"
# As many tests run as there are cores: threads of theirs, and of what they start, would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from stillroom.distill.corpus import Corpus
    from stillroom.tokens import Tokens

# No test may depend on how fast the machine is, and both of these do.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

WORDS = (
    "the", "a", "an", "and", "is", "was", "it", "this", "that", "what", "i", "my", "we", "you", "food",
    "room", "staff", "service", "hotel", "place", "crew", "flight", "great", "lovely", "wonderful", "happy",
    "awful", "terrible", "dirty", "sad", "plain", "usual", "average", "not", "very", "so", "really",
)  # fmt: skip
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'-"
TINY = {"vocab": 200, "hidden": 32, "heads": 4, "intermediate": 64, "positions": 64}
TOKENIZER_CLASSES = {
    "bert": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "roberta": "PreTrainedTokenizerFast",  # RoBERTa's own is byte-level BPE, which this folder does not hold
    "xlm-roberta": "XLMRobertaTokenizer",
}


# Files whose tests take minutes, before the others: a worker that takes one last keeps all waiting.
LONG_FILES = (
    "test_journey.py", "test_journey_own_data.py", "test_bench.py", "test_step_student.py",
    "test_step_search.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; the Makefile has pytest-xdist keep that order."""
    items.sort(key=lambda item: item.path.name not in LONG_FILES)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """One torch thread: results do not depend on the machine. torch is not loaded for tests without it."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def wordpiece_tokenizer() -> Tokenizer:
    """BERT's uncased tokenizer with a vocabulary of a hundred pieces."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{one}" for one in LETTERS)]
    pieces += [word for word in WORDS if word not in pieces]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return tokenizer


def unigram_tokenizer() -> Tokenizer:
    """A SentencePiece-like tokenizer with XLM-R's four special ids at the front."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(f"▁{word}", -3.0) for word in WORDS if len(word) > 1]
    pieces += [("▁", -4.0), *((one, -6.0) for one in LETTERS), ("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    return tokenizer


def save_tokenizer(folder: Path, family: str) -> None:
    """tokenizer.json and what AutoTokenizer needs beside it."""
    facts: dict[str, Any] = {"tokenizer_class": TOKENIZER_CLASSES[family]}
    if "roberta" in family:
        tokenizer, names = unigram_tokenizer(), ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
        facts |= {"bos_token": "<s>", "eos_token": "</s>"}
    else:
        tokenizer, names = wordpiece_tokenizer(), ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
        facts |= {"do_lower_case": True}
    roles = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    tokenizer.save(str(folder / "tokenizer.json"))
    facts |= dict(zip(roles, names, strict=True))
    (folder / "tokenizer_config.json").write_text(json.dumps(facts), encoding="utf-8")


def build_model_folder(
    folder: Path,
    family: str = "bert",
    head_labels: tuple[str, ...] | None = None,
    layers: int = 4,
    masked_lm: bool = False,
    **config_changes: Any,
) -> Path:
    """A Hugging Face folder with random weights: of head_labels, or masked_lm, or a bare encoder."""
    import torch
    import transformers

    sizes: dict[str, Any] = {"vocab_size": TINY["vocab"], "max_position_embeddings": TINY["positions"]}
    if family == "distilbert":
        sizes |= {"dim": TINY["hidden"], "n_layers": layers, "n_heads": TINY["heads"],
                  "hidden_dim": TINY["intermediate"]}  # fmt: skip
    else:
        sizes |= {
            "hidden_size": TINY["hidden"],
            "num_hidden_layers": layers,
            "num_attention_heads": TINY["heads"],
            "intermediate_size": TINY["intermediate"],
        }
    if "roberta" in family:
        sizes |= {"max_position_embeddings": TINY["positions"] + 2, "pad_token_id": 1, "bos_token_id": 0,
                  "eos_token_id": 2, "type_vocab_size": 1}  # fmt: skip
    if head_labels is not None:
        sizes |= {
            "id2label": dict(enumerate(head_labels)),
            "label2id": {label: index for index, label in enumerate(head_labels)},
        }
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **{**sizes, **config_changes})
    kind = transformers.AutoModel if head_labels is None else transformers.AutoModelForSequenceClassification
    if masked_lm:
        kind = transformers.AutoModelForMaskedLM
    model = kind.from_config(config)
    # Fresh weights are so small that every answer is nearly the same: a mistake would not show. Larger
    # ones than these no longer learn.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(20.0 if "classifier" in name else 4.0)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    save_tokenizer(folder, family)
    return folder


OPENINGS = ("the {} was", "what a {} and it is", "i really think the {} is", "my {} was so")
THINGS = ("food", "room", "staff", "service", "hotel", "place", "crew", "flight")
OPINIONS = {
    "good": ("great", "lovely", "wonderful", "happy"),
    "bad": ("awful", "terrible", "dirty", "sad"),
    "so-so": ("plain", "usual", "average"),
}


def made_up_reviews(rows: int, seed: int, classes: int = 2) -> list[tuple[str, str]]:
    """(review, label) pairs, classes in turn; the opinion word decides the label."""
    generator = np.random.default_rng(seed)
    labels = list(OPINIONS)[:classes]
    reviews = []
    for row in range(rows):
        label = labels[row % classes]
        opening = str(generator.choice(OPENINGS)).format(generator.choice(THINGS))
        filling = generator.choice(WORDS[:17], size=generator.integers(8))
        # The number keeps every review another one: duplicates are dropped before splitting.
        reviews.append((" ".join([opening, generator.choice(OPINIONS[label]), *filling, str(row)]), label))
    return reviews


def write_reviews(path: Path, rows: int = 120, seed: int = 0, classes: int = 2) -> Path:
    """made_up_reviews as a CSV file with the columns review and stars."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["review", "stars"])
        writer.writerows(made_up_reviews(rows, seed, classes))
    return path


SENTENCES = (
    "the food was great and my room is dirty",
    "what a lovely place this hotel is",
    "i really think the crew was awful",
    "we had a usual flight",
)


def write_text(path: Path, lines: int = 1200, seed: int = 0) -> Path:
    """Plain text of four sentences over and over, ten lines a document: a tiny model can learn it."""
    said = np.random.default_rng(seed).choice(SENTENCES, lines)
    documents = ["\n".join(said[start : start + 10]) for start in range(0, lines, 10)]
    path.write_text("\n\n".join(documents), encoding="utf-8")
    return path


def encode_reviews(
    folder: Path, rows: int, labels: tuple[str, ...], max_length: int = 32, seed: int = 0
) -> Tokens:
    """made_up_reviews as tokens of a model folder's tokenizer."""
    from stillroom.task import TaskSpec
    from stillroom.text import Row
    from stillroom.tokens import encode_rows, load_tokenizer

    task = TaskSpec(labels, max_length, ("input_ids", "attention_mask"))
    reviews = made_up_reviews(rows, seed, len(labels))
    made = [Row(text, None, label, 1.0, f"made up:{row}") for row, (text, label) in enumerate(reviews)]
    return encode_rows(load_tokenizer(folder, max_length), made, task, pad_id=0)


@pytest.fixture(scope="session")
def make_model_folder() -> Callable[..., Path]:
    return build_model_folder


@pytest.fixture(scope="session")
def review_csv() -> Callable[..., Path]:
    return write_reviews


def build_review_corpus(folder: Path, model: Path, text: Path, length: int, share: float) -> Corpus:
    """A text as folder/corpus, tokenized as a model folder does it. share: of the rows, held out."""
    from stillroom.distill.corpus import build_corpus

    tokenizer_json = (model / "tokenizer.json").read_text("utf-8")
    return build_corpus([text], tokenizer_json, length, folder / "corpus", share)


@pytest.fixture(scope="session")
def review_text() -> Callable[..., Path]:
    return write_text


@pytest.fixture(scope="session")
def review_corpus() -> Callable[..., Corpus]:
    return build_review_corpus


@pytest.fixture(scope="session")
def review_tokens() -> Callable[..., Tokens]:
    return encode_reviews


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare BERT encoder, as published checkpoints are. Tests copy it before changing it."""
    return build_model_folder(tmp_path_factory.mktemp("tiny-bert") / "model")


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with a head that answers good or bad (at random). Tests copy it before changing it."""
    return build_model_folder(tmp_path_factory.mktemp("tiny-teacher") / "model", head_labels=("good", "bad"))


@pytest.fixture(scope="session")
def tiny_masked_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT that fills masks, at random. Tests copy it before changing it."""
    return build_model_folder(tmp_path_factory.mktemp("tiny-masked-lm") / "model", masked_lm=True)


@pytest.fixture(scope="session")
def tiny_xlmr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An XLM-RoBERTa encoder with a Unigram tokenizer."""
    return build_model_folder(tmp_path_factory.mktemp("tiny-xlmr") / "model", "xlm-roberta")


@pytest.fixture(scope="session")
def quick_options() -> Callable[..., list[str]]:
    """Command-line options of a run with smaller numbers for every step, and any other recipe keys."""
    quick = ("measure.rounds=1", "measure.samples=3", "measure.warmup=1", "measure.lengths=[8, 16]",
             "measure.sweeps=false", "teacher.epochs=1", "student.epochs=1")  # fmt: skip
    return lambda *more: [word for setting in (*quick, *more) for word in ("--set", setting)]
