"""More rows for the teacher to answer: altered copies of the training rows, whose labels are not known.

Words replaced by a masked language model where the teacher has one, otherwise tokens left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.distill.masked_lm import HEADS
from stillroom.distill.special_tokens import MASKS
from stillroom.distill.targets_cache import tokens_sha256
from stillroom.distill.teacher import fast_tokenizer
from stillroom.errors import UsageError
from stillroom.files import read_json, staged_folder, write_json
from stillroom.model_folder import PADDED_ROWS, check_model_folder
from stillroom.processes import is_first, wait_for_first
from stillroom.progress import progress_bar
from stillroom.student import read_pretrained
from stillroom.tokens import Tokens, offsets_of, padded_inputs, without_labels

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SHARE = 0.15  # of a row's tokens, as BERT's own pre-training masks them
LIKELIEST = 10  # tokens a replacement is drawn from
BATCH_TOKENS = 512  # of a masked-LM pass: logits over 250,000 tokens of a vocabulary are half a gigabyte

# A masked-LM forward pass: ids, attention mask [rows, length] -> logits float32 [rows, length, vocabulary]
Fill = Callable[[np.ndarray, np.ndarray], np.ndarray]


def augmented(
    tokens: Tokens, source: Path, source_sha256: str, copies: int, seed: int, folder: Path
) -> tuple[Tokens, str]:
    """Altered copies of every row, and by which method they were made.

    source: the model folder the teacher came from; its tokenizer made the tokens. The copies are made once,
    by the first process, and kept in folder: a run that goes on, on whatever device, sees the same rows.
    Raises UsageError when the folder cannot be read.
    """
    key = {"source_sha256": source_sha256, "tokens_sha256": tokens_sha256(tokens), "copies": copies,
           "seed": seed, "share": SHARE}  # fmt: skip
    found = _load(folder, key, tokens.pad_id) if is_first() else None
    if is_first() and found is None:
        _save(folder, key, *_augment(tokens, source, copies, seed))
    wait_for_first()
    found = found or _load(folder, key, tokens.pad_id)
    if found is None:
        raise UsageError(f"{folder} was changed while it was in use: run the same command again")
    return found


def drop_tokens(
    tokens: Tokens, special_ids: Sequence[int] | np.ndarray, copies: int, seed: int, share: float = SHARE
) -> Tokens:
    """Copies of every row, copy after copy, that each token has left with probability share.

    Special tokens stay, and so does at least one other token where a row has any. Labels are unknown.
    """
    repeated = _repeated(tokens, copies)
    draws = np.random.default_rng(seed).random(len(repeated.ids))
    special = np.isin(repeated.ids, special_ids)
    stays = special | (draws >= share)
    row_of = np.repeat(np.arange(len(repeated)), repeated.lengths)
    left = np.bincount(row_of[stays & ~special], minlength=len(repeated))
    before = np.bincount(row_of[~special], minlength=len(repeated))
    for row in np.flatnonzero((left == 0) & (before > 0)):
        start, end = repeated.offsets[row : row + 2]
        stays[start + np.argmax(np.where(special[start:end], -1.0, draws[start:end]))] = True
    lengths = np.bincount(row_of[stays], minlength=len(repeated))
    return replace(
        repeated,
        ids=repeated.ids[stays],
        type_ids=repeated.type_ids[stays],
        offsets=offsets_of(lengths),
    )


def replace_tokens(
    tokens: Tokens,
    special_ids: Sequence[int] | np.ndarray,
    mask_id: int,
    fill: Fill,
    copies: int,
    seed: int,
    share: float = SHARE,
) -> Tokens:
    """Copies of every row, copy after copy, in which a masked language model has replaced some tokens.

    A share of each row's tokens, at least one, is masked at once; in the place of each comes a draw from
    the model's distribution over its LIKELIEST tokens. Special tokens are neither replaced nor drawn.
    Labels are unknown. The same arguments give the same rows.
    """
    repeated = _repeated(tokens, copies)
    generator = np.random.default_rng(seed)
    ranks, draws = generator.random(len(repeated.ids)), generator.random(len(repeated.ids))
    ranks[np.isin(repeated.ids, special_ids)] = np.inf
    chosen = np.zeros(len(repeated.ids), dtype=bool)
    for start, end in zip(repeated.offsets[:-1], repeated.offsets[1:], strict=True):
        if candidates := int(np.isfinite(ranks[start:end]).sum()):
            count = max(1, round(share * candidates))
            chosen[start + np.argsort(ranks[start:end], kind="stable")[:count]] = True
    ids = repeated.ids.copy()
    masked = replace(repeated, ids=np.where(chosen, mask_id, ids).astype(ids.dtype))
    with progress_bar(len(repeated), "words replaced", "row") as bar:
        for rows in _batches(repeated.lengths):
            places = [np.flatnonzero(chosen[slice(*repeated.offsets[row : row + 2])]) for row in rows]
            columns, lines = np.concatenate(places), np.repeat(np.arange(len(rows)), [*map(len, places)])
            if len(columns):
                batch = padded_inputs(masked, rows, ("input_ids", "attention_mask"))
                logits = fill(batch["input_ids"], batch["attention_mask"])
                flat = repeated.offsets[rows][lines] + columns
                ids[flat] = _drawn(logits[lines, columns], special_ids, draws[flat])
            bar.update(len(rows))
    return replace(repeated, ids=ids)


def mlm_filler(folder: Path) -> Fill | None:
    """The masked language model of a model folder; None when its weights have no whole masked-LM head.

    Segments (token type ids) are left at 0. Raises UsageError when the folder cannot be loaded.
    """
    if not any(name.startswith(HEADS) for name in check_model_folder(folder).tensors):
        return None
    model, report = read_pretrained("AutoModelForMaskedLM", folder)
    import torch

    if report["missing_keys"] or report["mismatched_keys"]:
        return None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ready = model.to(device)

    def fill(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        inputs = {"input_ids": ids, "attention_mask": mask}
        with torch.inference_mode():
            output = ready(**{name: torch.from_numpy(value).to(device) for name, value in inputs.items()})
        logits: np.ndarray = output.logits.float().cpu().numpy()
        return logits

    return fill


def never_drawn(tokenizer: Tokenizer) -> np.ndarray:
    """Ids, sorted, that are no part of a text: special tokens, and embedding rows that no token has."""
    special = {token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special}
    used = set(tokenizer.get_vocab().values())
    unused = set(range(max(used, default=-1) + 1 + PADDED_ROWS)) - used
    return np.array(sorted(special | set(tokenizer.encode("").ids) | unused), dtype=np.int64)


def _augment(tokens: Tokens, source: Path, copies: int, seed: int) -> tuple[Tokens, str]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(fast_tokenizer(source))
    special_ids = never_drawn(tokenizer)
    mask_id = next((found for name in MASKS if (found := tokenizer.token_to_id(name)) is not None), None)
    fill = mlm_filler(source)
    if fill is None or mask_id is None:
        return drop_tokens(tokens, special_ids, copies, seed), (
            "token dropout, the teacher has no masked-LM head"
        )
    made = replace_tokens(tokens, special_ids, mask_id, fill, copies, seed)
    return made, "word replacement by the teacher's masked-LM head"


def _repeated(tokens: Tokens, copies: int) -> Tokens:
    lengths = np.tile(tokens.lengths, copies)
    return without_labels(
        Tokens(
            ids=np.tile(tokens.ids, copies),
            type_ids=np.tile(tokens.type_ids, copies),
            offsets=offsets_of(lengths),
            labels=np.concatenate([tokens.labels] * copies) if copies else tokens.labels[:0],
            pad_id=tokens.pad_id,
        )
    )


def _batches(lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Row indices, longest first, of about BATCH_TOKENS tokens each; every row once."""
    order = np.argsort(-lengths, kind="stable")
    at = 0
    while at < len(order):
        size = max(1, BATCH_TOKENS // max(1, int(lengths[order[at]])))
        yield order[at : at + size]
        at += size


def _drawn(logits: np.ndarray, special_ids: Sequence[int] | np.ndarray, draws: np.ndarray) -> np.ndarray:
    """One token for each line of logits [n, vocabulary]; draws [n]: random numbers from 0 to 1."""
    allowed = np.ones(logits.shape[1], dtype=bool)
    allowed[[token for token in special_ids if token < len(allowed)]] = False
    values = np.where(allowed, logits, -np.inf)
    count = min(LIKELIEST, int(allowed.sum()))
    likeliest = np.argpartition(-values, count - 1, axis=1)[:, :count]
    best = np.take_along_axis(values, likeliest, axis=1).astype(np.float64)
    shares = np.cumsum(np.exp(best - best.max(axis=1, keepdims=True)), axis=1)
    picked = (shares <= draws[:, None] * shares[:, -1:]).sum(axis=1)
    drawn: np.ndarray = likeliest[np.arange(len(likeliest)), np.minimum(picked, count - 1)]
    return drawn


def _save(folder: Path, key: dict[str, Any], made: Tokens, method: str) -> None:
    with staged_folder(folder) as partial:
        for name in ("ids", "type_ids", "offsets", "labels"):
            np.save(partial / f"{name}.npy", getattr(made, name))
        write_json(partial / "key.json", {"key": key, "method": method})


def _load(folder: Path, key: dict[str, Any], pad_id: int) -> tuple[Tokens, str] | None:
    """What was saved under this key; None when it is absent, damaged, or of another key."""
    with contextlib.suppress(UsageError, OSError, ValueError, EOFError, KeyError, TypeError):
        facts = read_json(folder / "key.json")
        if facts["key"] == key:
            arrays = {
                name: np.load(folder / f"{name}.npy", allow_pickle=False)
                for name in ("ids", "type_ids", "offsets", "labels")
            }
            return Tokens(**arrays, pad_id=pad_id), str(facts["method"])
    return None
