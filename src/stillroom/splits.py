"""Rows -> train, validation and test: filtered, de-duplicated, stratified, and never overlapping."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.errors import UsageError, shown
from stillroom.files import read_json, sha256_file, write_atomic, write_json
from stillroom.kinds import all_scores, fixed_answer, kind_of
from stillroom.text import MAX_NAMES_SHOWN, Row

SCHEMA_VERSION = 1
DROPPED = ("dropped_low_confidence", "dropped_duplicates", "conflicting_duplicates", "dropped_overlaps")
PARTS = ("train", "validation", "test")
AGAIN = "make the splits again from the source file"
URL = re.compile(r"(?:https?://|www\.)\S+")
AT_NAME = re.compile(r"(?<!\w)@\w+")  # the look-behind leaves mail addresses alone
INTEGER = re.compile(r"-?[0-9]{1,18}")  # bounded: int() refuses thousands of digits

Key = tuple[str, str]  # folded text, folded pair


@dataclass(frozen=True)
class Splits:
    """No fold key is in two of the three. labels: in the order of the model's logits.

    counts: rows_read, dropped_low_confidence, dropped_duplicates, conflicting_duplicates (those of the
    duplicates that carried another label than the row that was kept), dropped_overlaps (with another of
    the user's files), each over all files; train_rows, validation_rows, test_rows, train_rows_before_cap;
    labels (label -> rows in train, validation, test), fixed_answer (the best that looks at no text, from
    train) and fixed_answer_score (what it scores on test, by the score that counts).
    warnings: one line each.
    """

    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    test: tuple[Row, ...]
    labels: tuple[str, ...]
    counts: dict[str, Any]
    warnings: tuple[str, ...]


def fold(text: str) -> str:
    """What is left of a text when case, white space, web addresses and @names do not count.

    Reposts of one message differ in just these; on both sides of a split they would be a leak.
    """
    text = AT_NAME.sub("@", URL.sub("http", text.casefold()))
    return " ".join(text.split())


def fold_key(row: Row) -> Key:
    """Rows with the same key count as the same example."""
    return fold(row.text), fold(row.pair or "")


def make_splits(
    rows: list[Row],
    validation_rows: list[Row] | None,
    test_rows: list[Row] | None,
    *,
    min_confidence: float,
    validation_fraction: float,
    test_fraction: float,
    max_train_rows: int,
    seed: int,
    kind: str = "text-classification",
) -> Splits:
    """Split rows by label with a seeded shuffle; the same rows and seed give the same splits anywhere.

    kind: of kinds.KINDS. Rows are dealt out by class; by the rarest of their labels; or by fifths of scores.

    validation_rows, test_rows: the user's own, used whole and in their order; None: drawn from rows. Every
    drawn split is in shuffled order, so the first rows of it are a fair sample. max_train_rows: 0 for all;
    the cap comes after the split, so the test rows do not depend on it.
    Raises UsageError for fractions that leave nothing, a single class, a class with too few rows to be in
    every split, and a label that the training rows do not know.
    """
    _check_numbers(validation_fraction, test_fraction, max_train_rows)
    tally: Counter[str] = Counter()
    pool = _clean(rows, "training", min_confidence, tally)
    labels = _labels_of(pool.values(), kind)
    given = {"test": test_rows, "validation": validation_rows}
    own = {
        name: _clean(part, name, min_confidence, tally) for name, part in given.items() if part is not None
    }
    warnings = []
    for name, part in own.items():
        _check_labels(part.values(), labels, kind)
        present = {label for row in part.values() for label in kind_of(kind).names(row.label)}
        warnings += [f"no {name} row is labelled {shown(one)}" for one in labels if one not in present]
    if len(own) == 2:
        warnings += _drop_overlap(own["validation"], "validation", own["test"], "test", tally)
        if not own["validation"]:
            raise UsageError("every validation row is also a test row: the two files must differ")
    for name, part in own.items():
        warnings += _drop_overlap(pool, "training", part, name, tally)

    # Test is drawn first: so it does not depend on the validation fraction either.
    fractions = {"test": test_fraction, "validation": validation_fraction}
    drawn = {name: fraction for name, fraction in fractions.items() if name not in own}
    parts = {name: tuple(part.values()) for name, part in own.items()}
    parts |= _draw(list(pool.values()), labels, drawn, seed, kind)
    before_cap = len(parts["train"])
    parts["train"] = _cap(parts["train"], labels, max_train_rows, kind)
    counts = {
        "rows_read": len(rows) + len(validation_rows or ()) + len(test_rows or ()),
        **{key: tally[key] for key in DROPPED},
        **{f"{name}_rows": len(parts[name]) for name in PARTS},
        "train_rows_before_cap": before_cap,
        **_label_counts(parts, labels, kind),
    }
    return Splits(parts["train"], parts["validation"], parts["test"], labels, counts, tuple(warnings))


def save_splits(splits: Splits, folder: Path) -> None:
    """Write train.jsonl, validation.jsonl, test.jsonl and, last, splits.json into folder."""
    checksums = {}
    for name in PARTS:
        rows: tuple[Row, ...] = getattr(splits, name)
        checksums[name] = save_rows(rows, folder / f"{name}.jsonl")
    facts = {"labels": splits.labels, "counts": splits.counts, "warnings": splits.warnings}
    write_json(folder / "splits.json", {"schema_version": SCHEMA_VERSION, **facts, "sha256": checksums})


def save_rows(rows: Iterable[Row], path: Path) -> str:
    """Write rows as JSON lines, whole or not at all; returns the file's sha256."""
    lines = [json.dumps(asdict(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows]
    write_atomic(path, "".join(lines))
    return sha256_file(path)


def load_splits(folder: Path) -> Splits:
    """Read back exactly what save_splits wrote. Raises UsageError when a file is missing or was changed."""
    place = folder / "splits.json"
    facts = read_json(place)
    if not isinstance(facts, dict) or facts.get("schema_version") != SCHEMA_VERSION:
        raise UsageError(f"{place}: expected schema_version {SCHEMA_VERSION}; {AGAIN}")
    try:
        parts = {name: load_rows(folder / f"{name}.jsonl", facts["sha256"][name]) for name in PARTS}
        labels, warnings = tuple(facts["labels"]), tuple(facts["warnings"])
        return Splits(**parts, labels=labels, counts=dict(facts["counts"]), warnings=warnings)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{place} is not a description of splits ({error!r}); {AGAIN}") from None


def load_rows(path: Path, sha256: str) -> tuple[Row, ...]:
    """What save_rows wrote. Raises UsageError when the file is missing or has another sha256."""
    if not path.is_file():
        raise UsageError(f"no such file: {path}; {AGAIN}")
    if sha256_file(path) != sha256:
        raise UsageError(f"{path} was changed after it was written; {AGAIN}")
    with path.open(encoding="utf-8") as file:
        return tuple(Row(**json.loads(line)) for line in file)


def _check_numbers(validation_fraction: float, test_fraction: float, max_train_rows: int) -> None:
    for name, fraction in (("validation_fraction", validation_fraction), ("test_fraction", test_fraction)):
        if not 0 < fraction < 1:
            raise UsageError(f"{name} is {fraction}, expected a number between 0 and 1")
    if validation_fraction + test_fraction >= 1:
        raise UsageError(
            f"validation_fraction {validation_fraction} and test_fraction {test_fraction} leave nothing to "
            "train on: together they must stay below 1"
        )
    if max_train_rows < 0:
        raise UsageError(f"max_train_rows is {max_train_rows}, expected 0 (all rows) or more")


def _clean(rows: list[Row], name: str, min_confidence: float, tally: Counter[str]) -> dict[Key, Row]:
    """Confident rows by fold key, the first of every key; what is dropped is counted in tally."""
    kept: dict[Key, Row] = {}
    for row in rows:
        if row.confidence < min_confidence:
            tally["dropped_low_confidence"] += 1
            continue
        key = fold_key(row)
        if key in kept:
            tally["dropped_duplicates"] += 1
            tally["conflicting_duplicates"] += kept[key].label != row.label
        else:
            kept[key] = row
    if not kept:
        raise UsageError(
            f"no {name} rows: {len(rows)} were read, none has confidence {min_confidence} or more"
        )
    return kept


def _sorted_labels(labels: Iterable[str]) -> tuple[str, ...]:
    names = sorted(labels)
    if all(INTEGER.fullmatch(name) for name in names):
        names.sort(key=int)
    return tuple(names)


def _labels_of(rows: Iterable[Row], kind: str) -> tuple[str, ...]:
    """What the logits stand for, in order. Raises UsageError when the rows differ in nothing."""
    written = {row.label for row in rows}
    if kind == "regression" and len(written) < 2:
        raise UsageError(f"every training row has the score {written.pop()}: there is nothing to learn")
    labels = _sorted_labels({label for one in written for label in kind_of(kind).names(one)})
    if not labels:
        raise UsageError("no training row has a label")
    if len(labels) < kind_of(kind).fewest_labels:
        raise UsageError(f"only one class ({shown(labels[0])}) in the training rows, at least two are needed")
    return labels


def _check_labels(rows: Iterable[Row], labels: tuple[str, ...], kind: str) -> None:
    for row in rows:
        for label in (one for one in kind_of(kind).names(row.label) if one not in labels):
            known = ", ".join(shown(label) for label in labels[:MAX_NAMES_SHOWN])
            more = f" and {len(labels) - MAX_NAMES_SHOWN} more" if len(labels) > MAX_NAMES_SHOWN else ""
            raise UsageError(
                f"{row.where}: label {shown(label)} is not among the training rows': {known}{more}"
            )


def _drop_overlap(
    part: dict[Key, Row], name: str, other: dict[Key, Row], other_name: str, tally: Counter[str]
) -> list[str]:
    """Remove from part the rows that are also in other; a warning with their count when there are any."""
    both = [key for key in part if key in other]
    for key in both:
        del part[key]
    tally["dropped_overlaps"] += len(both)
    return [f"{name} rows dropped because they are also {other_name} rows: {len(both)}"] if both else []


def _draw(
    rows: list[Row], labels: tuple[str, ...], fractions: dict[str, float], seed: int, kind: str
) -> dict[str, tuple[Row, ...]]:
    """Shuffle rows and deal each stratum out to the named parts, in their order; the rest is "train"."""
    order = np.random.default_rng(seed).permutation(len(rows)).tolist()
    stratum = kind_of(kind).strata([row.label for row in rows])
    members: dict[str, list[int]] = {name: [] for name in labels} if kind == "text-classification" else {}
    for index in order:
        members.setdefault(stratum[index], []).append(index)
    names = [name for name in PARTS if name in fractions or name == "train"]
    part_of = dict.fromkeys(order, "train")
    for name, indices in sorted(members.items()):
        if len(indices) < len(names):
            if kind != "text-classification":  # its labels are in other strata too: all of it is trained on
                continue
            raise UsageError(
                f"class {shown(name)} has too few rows: {len(indices)} usable, at least {len(names)} "
                f"needed, one in each of {', '.join(names)}"
            )
        left, after = indices, len(fractions)  # after: parts still to come, each of which needs a row
        for part, fraction in fractions.items():
            size = min(max(1, round(len(indices) * fraction)), len(left) - after)
            part_of |= dict.fromkeys(left[:size], part)
            left, after = left[size:], after - 1
    parts = {name: tuple(rows[index] for index in order if part_of[index] == name) for name in names}
    for name in names:
        if not parts[name]:
            raise UsageError(f"{len(rows)} usable rows are too few: none is left for {name}")
    return parts


def _cap(rows: tuple[Row, ...], labels: tuple[str, ...], max_rows: int, kind: str) -> tuple[Row, ...]:
    """At most max_rows of rows (0: all), the first of every stratum, strata in proportion."""
    if not max_rows or len(rows) <= max_rows:
        return rows
    if max_rows < len(labels):
        raise UsageError(
            f"max_train_rows is {max_rows}, at least one for each of {len(labels)} classes is needed"
        )
    stratum = kind_of(kind).strata([row.label for row in rows])
    names = labels if kind == "text-classification" else tuple(sorted(set(stratum)))
    if max_rows < len(names):
        raise UsageError(f"max_train_rows is {max_rows}, at least {len(names)} are needed")
    left = _shares(Counter(stratum), names, max_rows)
    kept = []
    for row, name in zip(rows, stratum, strict=True):
        if left[name]:
            left[name] -= 1
            kept.append(row)
    return tuple(kept)


def _shares(sizes: Counter[str], labels: tuple[str, ...], total: int) -> dict[str, int]:
    """Divide total (below the sum of sizes) over labels in proportion to sizes, at least one each."""
    whole = sum(sizes.values())
    shares = {label: max(1, total * sizes[label] // whole) for label in labels}
    while spare := total - sum(shares.values()):
        step = 1 if spare > 0 else -1
        # The class furthest from its exact share moves; integers, so that no rounding decides a tie.
        movable = [label for label in labels if step > 0 or shares[label] > 1]
        furthest = max(movable, key=lambda label: step * (total * sizes[label] - shares[label] * whole))
        shares[furthest] += step
    return shares


def _label_counts(parts: dict[str, tuple[Row, ...]], labels: tuple[str, ...], kind: str) -> dict[str, Any]:
    names_of = kind_of(kind).names
    per_part = {
        name: Counter(label for row in parts[name] for label in names_of(row.label)) for name in PARTS
    }
    answer, logits = fixed_answer(kind, [row.label for row in parts["train"]], labels)
    wanted = kind_of(kind).targets([row.label for row in parts["test"]], labels)
    found = all_scores(kind, np.repeat(logits, len(wanted), axis=0), wanted)
    return {
        "labels": {label: {name: per_part[name][label] for name in PARTS} for label in labels},
        "fixed_answer": answer,
        "fixed_answer_score": found[kind_of(kind).metric],
    }
