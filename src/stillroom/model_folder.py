"""Check a model folder before anything heavy opens it: weights, config and tokenizer must fit together."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillroom.errors import UsageError, shown
from stillroom.families import family_of
from stillroom.files import read_json
from stillroom.kinds import KINDS

MAX_HEADER_BYTES = 100 * 2**20  # the bound the safetensors format itself states
PADDED_ROWS = 128  # embeddings are often padded to a multiple of 64 or 128 rows
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "sentencepiece.bpe.model", "spiece.model", "vocab.json")
PICKLED = ("pytorch_model*.bin", "*model*.bin", "*.ckpt", "*.pt", "*.pth", "*.pkl")  # likeliest first
INDEX = "model.safetensors.index.json"  # which file of several holds which tensor


@dataclass(frozen=True)
class ModelFolder:
    """A checked folder. tensors: name -> shape, from the headers of the safetensors files."""

    path: Path
    config: dict[str, Any]
    tensors: dict[str, tuple[int, ...]]


def safetensors_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Tensor names and shapes from a safetensors header (https://github.com/huggingface/safetensors).

    Raises UsageError when the file is truncated or not safetensors.
    """
    size_bytes = path.stat().st_size
    try:
        with path.open("rb") as file:
            (header_bytes,) = struct.unpack("<Q", file.read(8))
            if header_bytes > min(MAX_HEADER_BYTES, size_bytes):
                raise ValueError("header longer than the file")
            header = json.loads(file.read(header_bytes))
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        if 8 + header_bytes + end != size_bytes:
            raise ValueError(f"{size_bytes} bytes on disk, {8 + header_bytes + end} announced")
        return {name: tuple(entry["shape"]) for name, entry in header.items()}
    except (
        struct.error,
        RecursionError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
    ) as error:
        raise UsageError(f"{path} is not a whole safetensors file: {error}") from None


def check_model_folder(path: Path) -> ModelFolder:
    """Check that a folder holds a supported model in safetensors form and its tokenizer.

    Raises UsageError with the reason and the remedy; loads no torch.
    """
    if not path.is_dir():
        raise UsageError(
            f"no model folder at {path}: give a folder with config.json, or a hub id with --allow-download"
        )
    if not (path / "config.json").is_file():
        raise UsageError(f"{path} has no config.json: it is not a Hugging Face model folder")
    config = read_json(path / "config.json")
    if not isinstance(config, dict):
        raise UsageError(f"{path / 'config.json'} is not a JSON object")
    family_of(str(config.get("model_type")))
    files = sorted(path.glob("*.safetensors"))
    if not files:
        pickled = [file.name for pattern in PICKLED for file in sorted(path.glob(pattern))]
        if pickled:
            raise UsageError(
                f"{path} has only {pickled[0]}, a pickle, which can run code when opened: convert it with "
                "transformers (model.save_pretrained(folder) writes safetensors) and try again"
            )
        raise UsageError(f"{path} has no weights: expected model.safetensors")
    if (path / INDEX).is_file() and not (path / "model.safetensors").is_file():
        _check_index(path / INDEX, {file.name for file in files})
    tensors: dict[str, tuple[int, ...]] = {}
    for file in files:
        tensors.update(safetensors_shapes(file))
    if not any((path / name).is_file() for name in TOKENIZER_FILES):
        raise UsageError(f"{path} has no tokenizer: expected one of {', '.join(TOKENIZER_FILES)}")
    return ModelFolder(path, config, tensors)


def _check_index(place: Path, files: set[str]) -> None:
    """Raise UsageError unless the index names files of its own folder only, and those are there."""
    index = read_json(place)
    named = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
        raise UsageError(f"{place} has no weight_map: it is not an index of safetensors files")
    if missing := sorted(set(named.values()) - files):
        raise UsageError(f"{place} names {shown(missing[0])}, which is not in its folder: copy it there")


def check_vocabulary(folder: ModelFolder, tokenizer_size: int, largest_id: int) -> None:
    """Raise UsageError unless the tokenizer's ids and the embedding rows belong together."""
    rows = next(
        (shape[0] for name, shape in folder.tensors.items() if name.endswith("word_embeddings.weight")),
        int(folder.config.get("vocab_size", 0)),
    )
    if largest_id >= rows or rows - tokenizer_size > PADDED_ROWS:
        raise UsageError(
            f"{folder.path}: the tokenizer has {tokenizer_size} tokens (largest id {largest_id}) but the "
            f"model has {rows} embedding rows: they belong to different models"
        )


def head_labels(folder: ModelFolder) -> tuple[str, ...] | None:
    """The labels of a trained classification head, in logit order, or None when the folder has no head."""
    head = ("classifier.weight", "classifier.out_proj.weight")
    shapes = [folder.tensors[name] for name in head if name in folder.tensors]
    architectures = folder.config.get("architectures") or []
    if not shapes or not any("SequenceClassification" in str(name) for name in architectures):
        return None
    count = shapes[0][0]
    id2label = folder.config.get("id2label") or {}
    if not isinstance(id2label, dict):
        raise UsageError(f"{folder.path / 'config.json'}: id2label is not an object")
    return tuple(str(id2label.get(str(index), f"LABEL_{index}")) for index in range(count))


def head_kind(folder: ModelFolder, outputs: int) -> str:
    """Which kind of task a trained head answers: as config.json says, else a score if it has one output."""
    said = folder.config.get("problem_type")
    known = {kind.problem_type: name for name, kind in KINDS.items()}
    return known.get(str(said), "regression" if outputs == 1 else "text-classification")


def has_masked_lm_head(folder: ModelFolder) -> bool:
    """Whether the weights can fill masks: BERT, RoBERTa and DistilBERT each name the head otherwise."""
    heads = ("cls.predictions.transform.dense.weight", "lm_head.dense.weight", "vocab_transform.weight")
    return any(name in folder.tensors for name in heads)


def require_masked_lm_head(folder: ModelFolder) -> None:
    """Raise UsageError, with the command that trains one, unless the folder has a masked-LM head."""
    if not has_masked_lm_head(folder):
        raise UsageError(
            f"{folder.path} has no masked-LM head: stillroom teach --task fill-mask --teacher {folder.path} "
            "--text FILES --out DIR trains one"
        )


def match_labels(head: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[str, ...] | None:
    """The wanted labels in the head's order, or None when the head answers another question.

    Case does not count (POSITIVE is positive) where the labels differ without it. A head saved without
    names (LABEL_0, LABEL_1, ...) fits labels that are the integers 0, 1, ...
    """
    if sorted(head) == sorted(wanted):
        return head
    spelling = {label.casefold(): label for label in wanted}
    folded = [label.casefold() for label in head]
    if len(spelling) == len(wanted) and sorted(folded) == sorted(spelling):
        return tuple(spelling[label] for label in folded)
    unnamed = tuple(f"LABEL_{index}" for index in range(len(head)))
    integers = tuple(str(index) for index in range(len(head)))
    return integers if head == unnamed and set(wanted) == set(integers) else None
