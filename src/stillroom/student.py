"""A trained model on disk: an ordinary Hugging Face folder plus stillroom.json, its task and lineage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillroom.errors import UsageError, first_line
from stillroom.extras import require
from stillroom.families import family_of, longest_input
from stillroom.files import read_json, sha256_file, sha256_json, write_json
from stillroom.kinds import kind_of
from stillroom.model_folder import check_model_folder, head_kind, head_labels
from stillroom.quiet import quiet
from stillroom.task import TaskSpec, task_from_dict

if TYPE_CHECKING:
    from torch import nn

SCHEMA_VERSION = 1
FILL_MASK = "fill-mask"  # the kind of task of a masked-LM model
DEFAULT_MAX_LENGTH = 128  # tokens, for a model folder that came without stillroom.json


@dataclass(frozen=True)
class Student:
    """folder: model.safetensors, config.json, tokenizer.json. lineage: where it came from, free of paths."""

    folder: Path
    task: TaskSpec
    lineage: dict[str, Any]

    @property
    def weights_sha256(self) -> str:
        """Of model.safetensors, or over all files of a model that is in several."""
        files = sorted(self.folder.glob("*.safetensors"))
        if len(files) == 1:
            return sha256_file(files[0])
        return sha256_json({file.name: sha256_file(file) for file in files})


def load_student(folder: Path) -> Student:
    """Open a model folder. One without stillroom.json must have a trained head; its task is read from config.

    Raises UsageError when the folder is not a whole model.
    """
    checked = check_model_folder(folder)
    if (folder / "stillroom.json").is_file():
        facts = read_json(folder / "stillroom.json")
        if not isinstance(facts, dict) or facts.get("schema_version") != SCHEMA_VERSION:
            raise UsageError(
                f"{folder / 'stillroom.json'} has another schema version than {SCHEMA_VERSION}: "
                "make the folder again with this stillroom"
            )
        task = facts.get("task")
        if isinstance(task, dict) and task.get("kind") == FILL_MASK:
            raise UsageError(
                f"{folder} fills masks and has no classification head: stillroom run RECIPE --teacher "
                f"{folder} trains one on your labels"
            )
        return Student(folder, task_from_dict(task), dict(facts.get("lineage") or {}))
    labels = head_labels(checked)
    if labels is None:
        raise UsageError(f"{folder} has no trained classification head: run stillroom distill first")
    config = load_config(folder)
    max_length = min(DEFAULT_MAX_LENGTH, longest_input(config))
    task = TaskSpec(labels, max_length, input_names(config, pair=False), kind=head_kind(checked, len(labels)))
    return Student(folder, task, {})


def load_config(folder: Path) -> Any:
    """The folder's transformers config, never from a hub; longest_input can read it. Raises UsageError."""
    require("transformers")
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        longest_input(config)
    except Exception as error:  # a hostile config.json can fail in any way
        raise UsageError(f"{folder / 'config.json'} could not be read: {first_line(error)}") from None
    return config


def input_names(config: Any, *, pair: bool) -> tuple[str, ...]:
    """The inputs a model needs. token_type_ids only where they can differ: a pair of texts and two types."""
    if pair and int(getattr(config, "type_vocab_size", 0) or 0) > 1:
        return ("input_ids", "attention_mask", "token_type_ids")
    return ("input_ids", "attention_mask")


def save_student(
    folder: Path, model: nn.Module, tokenizer_json: str, task: TaskSpec, lineage: dict[str, Any]
) -> None:
    """Write model, tokenizer and stillroom.json into folder (not atomic: call inside staged_folder)."""
    config: Any = model.config
    config.id2label = dict(enumerate(task.labels))
    config.label2id = {label: index for index, label in enumerate(task.labels)}
    config.problem_type = kind_of(task.kind).problem_type
    saver: Any = model
    saver.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    write_json(
        folder / "stillroom.json",
        {"schema_version": SCHEMA_VERSION, "task": task.to_dict(), "lineage": lineage},
    )


def load_model(folder: Path, **config_changes: Any) -> Any:
    """Load a ...ForSequenceClassification model in fp32 and eval mode, from safetensors, never from a hub.

    Raises UsageError when the weights do not fit the config. With config_changes, which ask for another head,
    head and pooler may be new; without them nothing may.
    """
    may_be_new = ("classifier.", "pre_classifier.", "{base}.pooler.") if config_changes else ()
    return load_pretrained("AutoModelForSequenceClassification", folder, may_be_new, **config_changes)


def load_pretrained(kind: str, folder: Path, may_be_new: tuple[str, ...] = (), **config_changes: Any) -> Any:
    """Load a model of a transformers Auto class in fp32 and eval mode, from safetensors, never from a hub.

    may_be_new: beginnings of the names of tensors the folder may lack, {base} standing for the encoder's.
    Raises UsageError when the weights do not fit the config.
    """
    model, report = read_pretrained(kind, folder, **config_changes)
    family = family_of(model.config.model_type)
    new = tuple(name.format(base=family.base) for name in may_be_new)
    absent = [*report["missing_keys"], *(entry[0] for entry in report["mismatched_keys"])]
    surplus = [name for name in report["unexpected_keys"] if f"{family.layers}." in name]
    for name in sorted([name for name in absent if not name.startswith(new)] + surplus):
        raise UsageError(f"{folder}: config.json and the weights do not agree about {name}")
    return model


def read_pretrained(kind: str, folder: Path, **config_changes: Any) -> tuple[Any, dict[str, Any]]:
    """load_pretrained's model whatever its weights lack, and transformers' report of that."""
    require("torch", "transformers")
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        with quiet():  # it also loads torchao where that is installed, which speaks of accelerators
            model, report = getattr(transformers, kind).from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
                **config_changes,
            )
    except Exception as error:  # a hostile config.json can fail in any way
        raise UsageError(f"{folder} could not be loaded: {first_line(error)}") from None
    return model.eval(), report


def parameter_count(model: nn.Module) -> int:
    """Number of parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
