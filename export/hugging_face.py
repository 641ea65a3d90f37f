"""What lies beside model.onnx so that Hugging Face libraries open the folder: optimum's ORTModel classes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from stillroom.files import write_json
from stillroom.task import TaskSpec
from stillroom.tokens import load_tokenizer

# kind -> its names in the families' vocabularies
SPECIAL_TOKENS = {
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "mask_token": ("[MASK]", "<mask>"),
}


def write_hugging_face_files(model_folder: Path, task: TaskSpec, out: Path) -> None:
    """config.json and the tokenizer as AutoConfig and AutoTokenizer read them.

    The tokenizer's class is the one that takes tokenizer.json as it is: a family's own class would set
    lowercasing from its defaults again.
    """
    shutil.copyfile(model_folder / "config.json", out / "config.json")
    if not (model_folder / "tokenizer.json").is_file():
        return  # a folder of a model alone: there is nothing to describe
    shutil.copyfile(model_folder / "tokenizer.json", out / "tokenizer.json")
    tokenizer = load_tokenizer(model_folder, task.max_length)
    facts: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": task.max_length,
        "model_input_names": list(task.inputs),
    }
    for kind, names in SPECIAL_TOKENS.items():
        if known := [name for name in names if tokenizer.token_to_id(name) is not None]:
            facts[kind] = known[0]
    write_json(out / "tokenizer_config.json", facts)
