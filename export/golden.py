"""Golden vectors: texts with the ids, logits and label a bundle gives them, to be replayed on the phone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.export.targets import Predict
from stillroom.kinds import kind_of
from stillroom.task import TaskSpec
from stillroom.tokens import encode_one

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Runtimes round int8 sums alike but float sums in another order, and CPUs without VNNI saturate some int8
# products: the same file may differ by this much (logits) and still be the same file, working.
GOLDEN_TOLERANCE = 0.05

# What apps meet, and what breaks tokenizers: nothing, one letter, long, other scripts, odd characters.
GOLDEN_TEXTS = (
    "",
    "a",
    "I love this airline, the crew was wonderful!",
    "Worst flight ever. Two hours late and nobody said sorry.",
    "The train leaves at 9:40 from platform 2.",
    "not bad at all",
    "I can't say that I'd ever, ever recommend it...",
    "   leading and trailing   white\tspace\n",
    "UPPER CASE SHOUTING",
    "CamelCase andmixedCase",
    "https://example.org/a?b=c&d=%20e is a link",
    "@someone thanks! #happy #travel2026",
    "mail me: someone@example.org",
    "So happy \U0001f600\U0001f389❤️ \U0001f468‍\U0001f469‍\U0001f467",
    "این هتل عالی بود، حتماً دوباره می‌آیم.",
    "这家餐厅的服务非常好。",
    "とても美味しかったです。",
    "إنه يوم جميل",
    "Это было ужасно.",
    "café naïve jalapeño résumé Ångström",
    "cafe\u0301 with a combining accent",
    "ﬁne ligature, ½ portion, ² squared, № 7",
    "zero\u200bwidth\u200bspace and soft\u00adhyphen",
    "control\x07characters\x1b[0m here",
    "“curly quotes” — dashes – and … dots",
    "$1,299.00 for 3.5 stars?!",
    "e-mail-like-hyphenated-words co-operate",
    "pneumonoultramicroscopicsilicovolcanoconiosis",
    "x" * 150,
    "[CLS] [SEP] [MASK] as plain text",
    "<b>html</b> &amp; {\"json\": true}",
    "the quick brown fox jumps over the lazy dog " * 60,
)  # fmt: skip


def golden_vectors(tokenizer: Tokenizer, predict: Predict, task: TaskSpec) -> list[dict[str, Any]]:
    """One entry per golden text, computed one text at a time, unpadded, as an app does it."""
    entries, answer = [], kind_of(task.kind).answer
    for index, text in enumerate(GOLDEN_TEXTS):
        pair = GOLDEN_TEXTS[(index + 1) % len(GOLDEN_TEXTS)] if task.pair else None
        ids, kinds = encode_one(tokenizer, text, pair)
        logits = predict_one(predict, task.inputs, ids, kinds)
        entry: dict[str, Any] = {
            "text": text,
            "input_ids": ids,
            "logits": [float(value) for value in logits],
            "label": answer(task.labels, logits),
        }
        if pair is not None:
            entry["pair"] = pair
        if "token_type_ids" in task.inputs:
            entry["token_type_ids"] = kinds
        entries.append(entry)
    return entries


def golden_tolerance(task: TaskSpec, goldens: Sequence[dict[str, Any]]) -> float:
    """How far replayed logits may be from these: scores may have any unit, so their own spread counts."""
    logits = np.array([entry["logits"] for entry in goldens])
    return GOLDEN_TOLERANCE * max(1.0, kind_of(task.kind).unit(logits))


def predict_one(predict: Predict, inputs: Sequence[str], ids: list[int], kinds: list[int]) -> np.ndarray:
    """Logits float32 [labels] of one encoded text."""
    arrays = {"input_ids": ids, "attention_mask": [1] * len(ids), "token_type_ids": kinds}
    return np.asarray(predict(*(np.array([arrays[name]], dtype=np.int64) for name in inputs))[0])
