"""BERT's tokenizer as a phone reads it: vocab.txt and a few settings, where those say all of tokenizer.json.

https://github.com/google-research/bert/blob/master/tokenization.py; the settings are Hugging Face's, by their
names in tokenizer.json (BertNormalizer, BertPreTokenizer, WordPiece, TemplateProcessing).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from stillroom.errors import UsageError
from stillroom.tokens import tokenizer_from_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ROLES = ("unknown_id", "cls_id", "sep_id")
RULES = ("single_word", "lstrip", "rstrip", "normalized")  # of an added token; the app has none of them
NORMALIZER = ("lowercase", "strip_accents", "clean_text", "handle_chinese_chars")


def vocabulary_lines(document: dict[str, Any]) -> list[str]:
    """The token of each id, of a WordPiece tokenizer.json.

    An id that is no word's has a line that no text can hold: added tokens are matched before words are looked
    up, and a line of theirs would make words of them as well.
    Raises UsageError when a token holds the end of a line.
    """
    words = {token_id: word for word, token_id in document["model"]["vocab"].items()}
    added = [token["id"] for token in document.get("added_tokens", [])]
    if broken := next((word for word in words.values() if "\n" in word), None):
        raise UsageError(f"the token {broken!r} has an end of line in it, which vocab.txt cannot hold")
    return [words.get(token_id, f"[no token {token_id}]") for token_id in range(max([*words, *added]) + 1)]


def wordpiece_settings(document: dict[str, Any]) -> dict[str, Any]:
    """What the app's tokenizer has to know besides vocab.txt: manifest.json's tokenizer.wordpiece.

    document: a tokenizer.json. Raises UsageError, with the reason, when it does what the app's cannot.
    """
    model, normalizer = document["model"], document.get("normalizer") or {}
    for found, wanted, part in (
        (model.get("type"), "WordPiece", "model"),
        (normalizer.get("type"), "BertNormalizer", "normalizer"),
        ((document.get("pre_tokenizer") or {}).get("type"), "BertPreTokenizer", "pre_tokenizer"),
        ((document.get("truncation") or {}).get("direction", "Right"), "Right", "truncation direction"),
    ):
        if found != wanted:
            raise _refused(f"its {part} is {found}, the app has {wanted} only")
    added = {token["content"]: token["id"] for token in document.get("added_tokens", [])}
    for token in document.get("added_tokens", []):
        if odd := [name for name in RULES if token.get(name)]:
            raise _refused(
                f"its added token {token['content']!r} is matched by {odd[0]}, the app has plain ones only"
            )
    known = {**model["vocab"], **added}
    cls, sep = _special_tokens(document.get("post_processor") or {})
    for token in (model["unk_token"], cls, sep):
        if token not in known:
            raise _refused(f"it has no {token} in its vocabulary")
    accents = normalizer.get("strip_accents")
    return {
        **{name: normalizer[name] for name in NORMALIZER},
        "strip_accents": normalizer["lowercase"] if accents is None else accents,
        "prefix": model["continuing_subword_prefix"],
        "max_word_chars": model["max_input_chars_per_word"],
        "unknown_id": known[model["unk_token"]],
        "cls_id": known[cls],
        "sep_id": known[sep],
        "added": added,
    }


def wordpiece_tokenizer(settings: dict[str, Any], lines: list[str], max_length: int) -> Tokenizer:
    """The tokenizer that vocab.txt and its settings describe: what the app's does, by Hugging Face's library.

    lines: the token of each id. Raises UsageError when an id is none of theirs.
    """
    added = settings["added"]
    for role, token_id in {**{role: settings[role] for role in ROLES}, **added}.items():
        if not 0 <= token_id < len(lines):
            raise UsageError(f"the tokenizer's {role} is {token_id}, vocab.txt has {len(lines)} tokens")
    tokens = {**dict(enumerate(lines)), **{token_id: token for token, token_id in added.items()}}
    unknown, cls, sep = (tokens[settings[role]] for role in ROLES)
    only_added = {token_id for token, token_id in added.items() if lines[token_id] != token}
    first = [_special(cls, 0), _sequence("A", 0), _special(sep, 0)]
    second = [_sequence("B", 1), _special(sep, 1)]
    document = {
        "version": "1.0",
        "added_tokens": [
            {"id": token_id, "content": token, "special": True, **dict.fromkeys(RULES, False)}
            for token, token_id in sorted(added.items(), key=lambda item: item[1])
        ],
        "normalizer": {
            "type": "BertNormalizer",
            **{name: settings[name] for name in NORMALIZER},
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": first,
            "pair": [*first, *second],
            "special_tokens": {
                token: {"id": token, "ids": [settings[role]], "tokens": [token]}
                for token, role in ((cls, "cls_id"), (sep, "sep_id"))
            },
        },
        "model": {
            "type": "WordPiece",
            "unk_token": unknown,
            "continuing_subword_prefix": settings["prefix"],
            "max_input_chars_per_word": settings["max_word_chars"],
            "vocab": {token: token_id for token_id, token in enumerate(lines) if token_id not in only_added},
        },
    }
    return tokenizer_from_json(json.dumps(document), max_length, "vocab.txt with its settings")


def _special(token: str, type_id: int) -> dict[str, Any]:
    return {"SpecialToken": {"id": token, "type_id": type_id}}


def _sequence(name: str, type_id: int) -> dict[str, Any]:
    return {"Sequence": {"id": name, "type_id": type_id}}


def _special_tokens(post: dict[str, Any]) -> tuple[str, str]:
    """The tokens before and after a text. Raises UsageError when they stand elsewhere than BERT's do."""
    if post.get("type") == "BertProcessing":
        return post["cls"][0], post["sep"][0]
    if post.get("type") == "TemplateProcessing":
        single, pair = (_places(post[name]) for name in ("single", "pair"))
        cls, sep = single[0][0], single[-1][0]
        text, second = [("A", 0)], [("B", 1)]
        one = [(cls, 0), *text, (sep, 0)]
        if single == one and pair == [*one, *second, (sep, 1)] and not {cls, sep} & {"A", "B"}:
            return cls, sep
    raise _refused("it does not put its special tokens as BERT does: [CLS] A [SEP] B [SEP]")


def _places(template: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """A template's (token or sequence, type id), in order."""
    found = [next(iter(place.values())) for place in template]
    return [(place["id"], place["type_id"]) for place in found]


def _refused(reason: str) -> UsageError:
    return UsageError(f"the app cannot read this model's tokenizer: {reason}; use a BERT with WordPiece")
