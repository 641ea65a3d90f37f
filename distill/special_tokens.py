"""What fill-mask needs to know of a tokenizer: its mask, its special ids, how many there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stillroom.errors import UsageError
from stillroom.tokens import tokenizer_from_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MASKS = ("[MASK]", "<mask>")
PADS = ("[PAD]", "<pad>")
UNKNOWNS = ("[UNK]", "<unk>")


@dataclass(frozen=True)
class SpecialTokens:
    """ids: all of them, increasing. vocabulary_size: ids of all tokens run from 0 to one below it."""

    tokenizer_json: str
    vocabulary_size: int
    cls_id: int
    sep_id: int
    mask_id: int
    ids: tuple[int, ...]


def read_special_tokens(tokenizer_json: str, where: str = "the tokenizer") -> SpecialTokens:
    """Read a tokenizer.json text.

    Raises UsageError when it knows no mask token, or puts anything but one token before and one after a text
    ([CLS] and [SEP], <s> and </s>).
    """
    tokenizer = plain_tokenizer(tokenizer_json, where)
    mask = next((name for name in MASKS if tokenizer.token_to_id(name) is not None), None)
    if mask is None:
        raise UsageError(f"{where} has no {' or '.join(MASKS)}: fill-mask needs a tokenizer with a mask")
    around = tokenizer.encode("").ids
    if len(around) != 2:
        raise UsageError(
            f"{where} puts {len(around)} special tokens around a text: expected two, as [CLS] and [SEP]"
        )
    cls_id, sep_id = around
    mask_id = tokenizer.get_vocab()[mask]
    special = {index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    size = max(tokenizer.get_vocab().values()) + 1
    ids = tuple(sorted({*special, *around, mask_id}))
    return SpecialTokens(tokenizer_json, size, cls_id, sep_id, mask_id, ids)


def plain_tokenizer(tokenizer_json: str, where: str = "the tokenizer") -> Tokenizer:
    """A tokenizer that cuts nothing and reads "[MASK]" in a text as the text it is. Raises UsageError."""
    tokenizer = tokenizer_from_json(tokenizer_json, 2, where)
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    return tokenizer


def special_names(special: SpecialTokens) -> dict[str, str]:
    """The special tokens by the role transformers gives them, for tokenizer_config.json."""
    known = plain_tokenizer(special.tokenizer_json).get_vocab()
    name_of = {index: name for name, index in known.items()}
    names = {
        "cls_token": name_of[special.cls_id],
        "sep_token": name_of[special.sep_id],
        "mask_token": name_of[special.mask_id],
    }
    for role, usual in (("pad_token", PADS), ("unk_token", UNKNOWNS)):
        if found := [name for name in usual if name in known]:
            names[role] = found[0]
    return names
