"""A smaller vocabulary: the tokens that the user's texts use, and those that keep any other text readable.

In a small BERT most parameters are rows of the embedding table that no text of the user ever reads.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.errors import UsageError, first_line
from stillroom.families import family_of
from stillroom.tokens import check_text, tokenizer_from_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH_TEXTS = 256
# Loaders add those of these that a vocabulary lacks, and the model would have no rows for them.
CUSTOMARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<s>", "<pad>", "</s>", "<unk>", "<mask>")
OUTPUT_BIASES = ("cls.predictions.bias", "lm_head.bias")  # a second bias, where nothing is tied
BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class Trimmed:
    """tokenizer_json: the text of the smaller tokenizer.json, whose ids are 0 to new size - 1.

    source_ids: int64 [new size], the old id whose embedding row each new id takes. Old tokens stay in
    their order; a character that the old vocabulary had only inside longer pieces repeats a row.
    """

    tokenizer_json: str
    source_ids: np.ndarray


class _Score(float):
    """A number and the text it was read from.

    The library reads decimal numbers to within one unit in the last place: only the same text is sure to
    give it the same score again, and two nearly equal scores could change places.
    """

    def __init__(self, text: str) -> None:
        self.text = text


def trim_tokenizer(
    tokenizer_json: str, texts: Iterable[str], limit: int | None = None, keep_ids: Iterable[int] = ()
) -> Trimmed:
    """Keep the tokens that whole texts (read once, in batches) are made of, and a safety list.

    The safety list: every character that occurs in a piece of the vocabulary, for WordPiece at the
    beginning of a word and inside one, and byte pieces. So, without a limit:
    1. a text made of kept tokens, as are the given ones, gives the same tokens as before;
    2. no text gets an unknown token where it had none. (A WordPiece word that was unknown may become known.)

    limit: at most that many tokens, and 2. holds no more. Special and added tokens come first, then the
    safety list, then other tokens, the most frequent first. keep_ids: old ids to keep whatever the texts
    are, see config_ids; ids that no token has are passed over.
    Raises UsageError for a tokenizer that is neither WordPiece nor Unigram, one whose ids do not agree,
    a text it cannot read, and a limit that leaves no room beside special and added tokens.
    """
    tokenizer = tokenizer_from_json(tokenizer_json, max_length=1)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    kind = type(tokenizer.model).__name__
    if kind not in ("WordPiece", "Unigram"):
        raise UsageError(
            f"cannot cut a {kind} vocabulary, only WordPiece and Unigram: "
            'student.vocabulary = "all" keeps everything'
        )
    data = json.loads(tokenizer_json, parse_float=_Score)
    data["added_tokens"] = [token for token in data.get("added_tokens") or () if token["content"]]
    model = data["model"]
    if kind == "WordPiece":
        pieces = sorted(model["vocab"].items(), key=lambda item: item[1])
    else:
        pieces = [(piece, index) for index, (piece, _) in enumerate(model["vocab"])]
    # The library numbers added tokens itself, whatever the file says.
    id_of = tokenizer.get_vocab(with_added_tokens=True)
    added = {token["content"]: id_of[token["content"]] for token in data["added_tokens"]}
    outside = sorted(added.items() - set(pieces), key=lambda item: item[1])
    ids = {index for _, index in pieces + outside}
    if not ids or len(ids) != len(pieces) + len(outside):
        raise UsageError("the tokenizer has no tokens, or two with the same id")
    first = _fixed_ids(data, id_of, ids) | (ids & set(keep_ids))
    if limit is not None and limit <= len(first):
        raise UsageError(
            f"a vocabulary of {limit} tokens is too small: {len(first)} are special or added tokens, "
            f"expected at least {len(first) + 1}"
        )
    counts = _count(tokenizer, texts, max(ids) + 1)
    lowest: list[int] = []
    if kind == "Unigram":  # the score of an unknown character hangs on the lowest one, which so must stay
        lowest = [min(range(len(pieces)), key=lambda index: float(model["vocab"][index][1]))]
    safety, made_up = _safety_list(data, pieces, counts)
    used = sorted((index for index in ids if counts[index]), key=lambda index: (-counts[index], index))
    # dict.fromkeys: each once, at its first place
    wanted = list(dict.fromkeys([*sorted(first), *lowest, *safety, *used]))[:limit]
    kept = {index for index in wanted if isinstance(index, int)}
    tokens = [item for item in pieces if item[1] in kept]
    tokens += sorted((token, made_up[token]) for token in wanted if isinstance(token, str))
    source_ids = [index for _, index in tokens + outside]  # in the library's order: the model's come first
    return Trimmed(_rewritten(data, kind, tokens, added, new_ids(source_ids)), np.array(source_ids, np.int64))


def config_ids(config: Any) -> set[int]:
    """The old ids that a model's config names, and those below the padding where positions count from it."""
    found: set[int] = set()
    for name in _id_names(config):
        value = getattr(config, name)
        found.update(value if isinstance(value, list | tuple) else [value])
    if family_of(config.model_type).first_position_after_pad:
        found.update(range(config.pad_token_id or 0))
    return found


def new_ids(source_ids: Sequence[int] | np.ndarray) -> dict[int, int]:
    """Old id -> new id, for the old ids that are kept."""
    found: dict[int, int] = {}
    for new, old in enumerate(source_ids):
        found.setdefault(int(old), new)  # the token itself comes before characters that borrow its row
    return found


def trim_model(model: Any, source_ids: np.ndarray) -> Any:
    """A copy of the model with the rows source_ids, int64 [new size], of its embedding table.

    model: a Hugging Face ...ForSequenceClassification or ...ForMaskedLM of one of our families; of the
    latter the output layer is cut too. Ids in its config are renumbered, those not kept become None.
    Raises UsageError when the table has no such row, or the padding is lost, or moves where positions
    count from it.
    """
    rows = len(model.get_input_embeddings().weight)
    if len(source_ids) == 0 or source_ids.min() < 0 or source_ids.max() >= rows:
        raise UsageError(f"the tokenizer has ids beyond the model's {rows} embedding rows")
    config = copy.deepcopy(model.config)
    config.vocab_size = len(source_ids)
    new_id = new_ids(source_ids)
    for name in _id_names(config):
        old = getattr(config, name)
        if isinstance(old, list | tuple):
            setattr(config, name, [new_id[one] for one in old if one in new_id])
        else:
            setattr(config, name, new_id.get(old))
    before, after = model.config.pad_token_id, config.pad_token_id
    if before is not None and after is None:
        raise UsageError(f"pad_token_id {before} of config.json is not among the tokens kept")
    if before != after and family_of(config.model_type).first_position_after_pad:
        raise UsageError(f"pad_token_id {before} would become {after}, and positions count from it")

    import torch

    places = (model.get_input_embeddings(), model.get_output_embeddings())
    cut = {weight.data_ptr() for place in places if place is not None for weight in place.parameters()}
    index = torch.from_numpy(source_ids).to(model.device)
    weights = {
        name: tensor[index] if tensor.data_ptr() in cut or name in OUTPUT_BIASES else tensor
        for name, tensor in model.state_dict().items()
    }
    trimmed = type(model)(config).to(model.device, model.dtype)
    trimmed.load_state_dict(weights, strict=True)
    return trimmed.train(model.training)


def _id_names(config: Any) -> list[str]:
    return [
        name for name, value in config.to_dict().items() if name.endswith("_token_id") and value is not None
    ]


def _fixed_ids(data: dict[str, Any], id_of: dict[str, int], ids: set[int]) -> set[int]:
    """Ids of the added and customary tokens, and of those that other parts of tokenizer.json name."""
    fixed = {id_of[token["content"]] for token in data["added_tokens"]}
    names = [*CUSTOMARY, data["model"].get("unk_token"), (data.get("padding") or {}).get("pad_token")]
    fixed.update(id_of[name] for name in names if name in id_of)
    if data["model"].get("unk_id") is not None:
        fixed.add(data["model"]["unk_id"])

    def note(old: int) -> int:
        fixed.add(old)
        return old

    _change_ids(data.get("post_processor"), note)
    if data.get("padding"):
        note(data["padding"]["pad_id"])
    for index in fixed - ids:
        raise UsageError(f"tokenizer.json names the id {index}, which no token of it has")
    return fixed


def _change_ids(processor: dict[str, Any] | None, change: Callable[[int], int]) -> None:
    """Put change(id) in place of every id in a post_processor of tokenizer.json."""
    processor = processor or {}
    for part in processor.get("processors", ()):  # Sequence
        _change_ids(part, change)
    for name in ("sep", "cls"):  # BertProcessing, RobertaProcessing: [token, id]
        if name in processor:
            processor[name][1] = change(processor[name][1])
    special = processor.get("special_tokens", {})  # TemplateProcessing
    for token in special.values():
        token["ids"] = [change(old) for old in token["ids"]]


def _count(tokenizer: Tokenizer, texts: Iterable[str], size: int) -> np.ndarray:
    """How often the texts use each id, int64 [size]."""
    counts = np.zeros(size, dtype=np.int64)
    rest = iter(texts)
    while batch := [check_text(text) for text in itertools.islice(rest, BATCH_TEXTS)]:
        try:
            encodings = tokenizer.encode_batch(batch, add_special_tokens=False)
        except Exception as error:  # the Rust side raises bare Exception
            raise UsageError(f"the tokenizer cannot read the texts: {first_line(error)}") from None
        ids = itertools.chain.from_iterable(encoding.ids for encoding in encodings)
        counts += np.bincount(np.fromiter(ids, dtype=np.int64), minlength=size)
    return counts


def _safety_list(
    data: dict[str, Any], pieces: list[tuple[str, int]], counts: np.ndarray
) -> tuple[list[int | str], dict[str, int]]:
    """Single characters and byte pieces by id, or by themselves where the vocabulary has no such piece.

    The first are those that the texts would need most if there were no longer pieces. Also returned: the
    row of each character without an id, which is that of the shortest piece with this character in it.
    """
    prefix: str | None = data["model"].get("continuing_subword_prefix")  # None for Unigram
    # "[CLS]" and the like are taken out of a text before the model sees it.
    taken_out = {
        token["content"]
        for token in data["added_tokens"]
        if token["special"] and not token["normalized"] and not token["single_word"]
    }
    shortest: dict[str, tuple[int, int]] = {}
    needed: Counter[str] = Counter()
    for piece, index in pieces:
        inside = prefix is not None and piece.startswith(prefix) and piece != prefix
        if piece in taken_out and not inside:
            continue
        text = piece[len(prefix or "") :] if inside else piece
        source, count = (len(text), index), int(counts[index])
        for place, character in enumerate(text):
            shortest[character] = min(shortest.get(character, source), source)
            needed[f"{prefix}{character}" if inside or (place and prefix is not None) else character] += count
    forms = [form for one in shortest for form in ((one,) if prefix is None else (one, f"{prefix}{one}"))]
    id_of = dict(pieces)
    if data["model"].get("byte_fallback"):
        byte_pieces = [piece for piece in id_of if BYTE_PIECE.fullmatch(piece)]
        needed.update({piece: int(counts[id_of[piece]]) for piece in byte_pieces})
        if len(byte_pieces) == 256:  # none is unknown, and a new piece for one would change its tokens
            forms = [form for form in forms if form in id_of]
        forms += byte_pieces
    forms.sort(key=lambda form: (-needed[form], id_of.get(form, len(counts)), form))
    made_up = {form: shortest[form[-1]][1] for form in forms if form not in id_of}
    return [id_of.get(form, form) for form in forms], made_up


def _rewritten(
    data: dict[str, Any], kind: str, tokens: list[tuple[str, int]], added: dict[str, int], new: dict[int, int]
) -> str:
    """tokenizer.json with these model tokens, and new ids wherever it has ids. data is changed."""
    model = {"type": kind, **data.pop("model")}
    vocabulary = model.pop("vocab")
    for token in data["added_tokens"]:
        token["id"] = new[added[token["content"]]]
    _change_ids(data.get("post_processor"), new.__getitem__)
    if data.get("padding"):
        data["padding"]["pad_id"] = new[data["padding"]["pad_id"]]
    if kind == "WordPiece":
        written = _json({token: index for index, (token, _) in enumerate(tokens)})
    else:
        if model.get("unk_id") is not None:
            model["unk_id"] = new[model["unk_id"]]
        # Below what an unknown character gets, the lowest score - 10: so it is chosen only where that was.
        # A whole number, which every reader reads alike.
        made_up = float(math.floor(min(score for _, score in vocabulary)) - 11)
        entries = []
        for token, old in tokens:
            score = vocabulary[old][1] if vocabulary[old][0] == token else made_up
            entries.append(f"[{_json(token)},{float(score)}]")
        written = f"[{','.join(entries)}]"
    return f'{_json(data)[:-1]},"model":{_json(model)[:-1]},"vocab":{written}}}}}'


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
