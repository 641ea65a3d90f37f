"""The app's table of characters, as tokenizers has it: python -m stillroom.export.android.unicode_tables

The JVM's and Android's own Unicode tables differ from version to version, and from those that the models were
trained with. So the Kotlin tokenizer has its own, and they are not written by hand from the standard either:
tokenizers is asked what it does with every code point, and the file holds its answers. What its readers rely
on beyond single characters is checked here; CheckFailed says what no longer holds.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stillroom.errors import CheckFailed
from stillroom.extras import require, version_of

RESOURCES = Path(__file__).resolve().parents[2] / "android_demo" / "app" / "src" / "main" / "resources"
DEFAULT_OUT = RESOURCES / "dev" / "stillroom" / "tokenization" / "unicode.txt"
SURROGATES = range(0xD800, 0xE000)
HANGUL = range(0xAC00, 0xD7A4)
ASCII = range(0x80)
BETWEEN = "q"  # asked between characters: none but Q becomes one, which counting the answers shows
BATCH = 512  # characters asked about at once
FIRST_MARK, LAST_MARK = "\u0334", "\u0345"  # of the lowest and the highest combining class, 1 and 240
COLUMNS = 110

HEAD = """\
# What BERT's tokenizer does with every character, as tokenizers {version} answered for each of them.
# Written by python -m stillroom.export.android.unicode_tables: write it again rather than edit it.
# All numbers are hexadecimal code points. A..B is a range, A..B/2 every second one of it.
# A=C: A becomes C. A..B=C: each of them becomes C. A..B>C: A becomes C, the next one C+1 (C+2 after /2) ...
"""

Answers = Mapping[int, str]
Entry = tuple[int, int, int, str]  # first, last, step, what follows


@dataclass(frozen=True)
class Tables:
    """Code points by what happens to them; strings are what becomes of one.

    removed: by clean_text. space: between words. punctuation: a word of its own. cjk: a word of its own, by
    handle_chinese_chars. lowercase: by lowercase. decomposed: by strip_accents, which is NFD without
    nonspacing marks; without the Hangul syllables, which arithmetic decomposes. dropped: nonspacing marks, by
    strip_accents. dropped_starters: those of them that marks do not move across. order: marks that
    strip_accents leaves and NFD puts into order, a lower number first.
    """

    removed: frozenset[int]
    space: frozenset[int]
    punctuation: frozenset[int]
    cjk: frozenset[int]
    lowercase: Answers
    decomposed: Answers
    dropped: frozenset[int]
    dropped_starters: frozenset[int]
    order: Mapping[int, int]


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise CheckFailed(f"this version of tokenizers is not as the app's tokenizer expects: {what}")


def code_points() -> list[int]:
    """Every code point but the surrogates, which are no characters."""
    return [point for point in range(0x110000) if point not in SURROGATES]


def _changed(ask: Callable[[str], str], asked: Iterable[tuple[int, str]]) -> dict[int, str]:
    """Code point -> what ask makes of the text beside it, where it changes that. Many are asked at once."""
    rows = list(asked)
    found = {point: ask(text) for point, text in rows if point in ASCII and ask(text) != text}
    rows = [row for row in rows if row[0] not in ASCII]
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        whole = BETWEEN + BETWEEN.join([text for _, text in batch]) + BETWEEN
        answer = ask(whole)
        if answer != whole:
            parts = answer.split(BETWEEN)[1:-1]
            _check(len(parts) == len(batch), f"a character near U+{batch[0][0]:04X} becomes {BETWEEN}")
            found.update(
                (point, part) for (point, text), part in zip(batch, parts, strict=True) if part != text
            )
    return found


def _spaces_and_punctuation() -> tuple[frozenset[int], frozenset[int]]:
    from tokenizers.pre_tokenizers import BertPreTokenizer

    splitter, space, alone = BertPreTokenizer(), set(), set()
    points = code_points()
    for start in range(0, len(points), BATCH):
        batch = points[start : start + BATCH]
        words = splitter.pre_tokenize_str(BETWEEN + BETWEEN.join(map(chr, batch)) + BETWEEN)
        if len(words) == 1:
            continue
        length = {at: end - first for _, (first, end) in words for at in range(first, end)}
        space |= {point for index, point in enumerate(batch) if 2 * index + 1 not in length}
        alone |= {point for index, point in enumerate(batch) if length.get(2 * index + 1) == 1}
    return frozenset(space), frozenset(alone)


def ask_tables() -> Tables:
    """Ask `tokenizers` about every code point. Raises CheckFailed where its rules have changed."""
    require("tokenizers")
    from tokenizers.normalizers import NFD, BertNormalizer

    characters = [(point, chr(point)) for point in code_points()]

    def by(rule: str) -> dict[int, str]:
        rules = dict.fromkeys(("clean_text", "handle_chinese_chars", "strip_accents", "lowercase"), False)
        return _changed(BertNormalizer(**{**rules, rule: True}).normalize_str, characters)

    clean, cjk = by("clean_text"), by("handle_chinese_chars")
    lowercase, stripped = by("lowercase"), by("strip_accents")
    space, punctuation = _spaces_and_punctuation()
    removed = frozenset(point for point, text in clean.items() if not text)
    _check(set(clean.values()) == {"", " "}, "clean_text replaces by more than a space")
    _check({point for point, text in clean.items() if text} | {0x20} == space - removed,
           "clean_text makes spaces of other characters than those that are between words")  # fmt: skip
    _check(all(text == f" {chr(point)} " for point, text in cjk.items()), "a CJK character changes")
    _check(all(stripped[point] == hangul_letters(point) for point in HANGUL), "Hangul is irregular")
    stripped = {point: text for point, text in stripped.items() if point not in HANGUL}
    dropped = frozenset(point for point, text in stripped.items() if not text)
    nfd = NFD().normalize_str
    parts = _changed(nfd, characters)
    marks = _ordered_marks(nfd, [point for point in code_points() if point not in parts])
    tables = Tables(
        removed=removed,
        space=space,
        punctuation=punctuation,
        cjk=frozenset(cjk),
        lowercase=lowercase,
        decomposed={point: text for point, text in stripped.items() if text},
        dropped=dropped,
        dropped_starters=frozenset(
            point for point in dropped if any(ord(part) not in marks for part in parts.get(point, chr(point)))
        ),
        order=_ranks(nfd, sorted(marks - dropped)),
    )
    _check_together(tables, parts)
    return tables


def _check_together(tables: Tables, parts: Answers) -> None:
    """What the Kotlin code takes for granted, so that it can stay simple."""
    special = tables.space | tables.punctuation | tables.cjk
    for point, text in tables.decomposed.items():
        left = [ord(char) for char in text]
        what = f"U+{point:04X} becomes {' '.join(f'U+{one:04X}' for one in left)}"
        _check(left[0] not in tables.order, f"{what}, of which the first would be ordered")
        _check(len(left) == 1 or not special.intersection([point, *left]), f"{what}, more than a word")
        starters = tables.dropped_starters.intersection(ord(part) for part in parts[point])
        _check(not (starters and tables.order.keys() & set(left)), f"{what}, with a mark that is a starter")
    for point, text in tables.lowercase.items():
        lowered = {ord(char) for char in text}
        _check(not special.intersection([point, *lowered]), f"U+{point:04X} is no letter, or becomes none")
        _check(not tables.order.keys() & (lowered | {point}), f"U+{point:04X} is a mark with a lower case")


def hangul_letters(point: int) -> str:
    """A Hangul syllable as NFD has it: two letters, or three."""
    block, tail = divmod(point - HANGUL.start, 28)
    lead, vowel = divmod(block, 21)
    return chr(0x1100 + lead) + chr(0x1161 + vowel) + (chr(0x11A7 + tail) if tail else "")


def _ordered_marks(nfd: Callable[[str], str], points: Sequence[int]) -> set[int]:
    """Of the points that NFD leaves alone, those that it moves: whose combining class is not 0."""
    after_last = _changed(nfd, ((point, LAST_MARK + chr(point)) for point in points))
    before_first = _changed(nfd, ((point, chr(point) + FIRST_MARK) for point in points))
    return {*after_last, *before_first, ord(FIRST_MARK), ord(LAST_MARK)}


def _ranks(nfd: Callable[[str], str], marks: Sequence[int]) -> dict[int, int]:
    """The place of every mark in NFD's order, from 1; marks that keep the order they come in share one."""

    def compare(one: int, other: int) -> int:
        return int(nfd(chr(one) + chr(other))[0] != chr(one)) - int(
            nfd(chr(other) + chr(one))[0] != chr(other)
        )

    ranks: dict[int, int] = {}
    rank, last = 0, None
    for mark in sorted(marks, key=functools.cmp_to_key(compare)):
        rank += last is None or compare(last, mark) != 0
        ranks[mark], last = rank, mark
    return dict(sorted(ranks.items()))


def _points(text: str) -> str:
    return ",".join(f"{ord(char):x}" for char in text)


def _set_entries(points: Iterable[int]) -> list[Entry]:
    return _same_entries(dict.fromkeys(points, ""))


def _same_entries(found: Mapping[int, str]) -> list[Entry]:
    """Neighbours that become the same, as ranges."""
    entries: list[Entry] = []
    for point, text in sorted(found.items()):
        if entries and entries[-1][1] == point - 1 and entries[-1][3] == text:
            entries[-1] = (entries[-1][0], point, 1, text)
        else:
            entries.append((point, point, 1, text))
    return entries


def _shift_entries(found: Answers) -> list[Entry]:
    """Neighbours, or every second one, that move by the same distance, as ranges."""
    left = {point: ord(text) for point, text in sorted(found.items()) if len(text) == 1}
    entries = [(point, point, 1, f"={_points(text)}") for point, text in found.items() if len(text) > 1]
    while left:
        first, target = next(iter(left.items()))
        runs = [(_run(left, first, step), step) for step in (1, 2)]
        count, step = max(runs, key=lambda run: run[0])
        last = first + (count - 1) * step
        entries.append((first, last, step if count > 1 else 1, f"{'>' if count > 1 else '='}{target:x}"))
        for point in range(first, last + 1, step):
            del left[point]
    return sorted(entries)


def _run(shifts: Mapping[int, int], first: int, step: int) -> int:
    count = 1
    while shifts.get(first + count * step) == shifts[first] + count * step:
        count += 1
    return count


def _section(name: str, why: str, entries: Iterable[Entry]) -> str:
    lines = [f"\n[{name}]  # {why}", ""]
    for first, last, step, rest in entries:
        span = f"{first:x}" + (f"..{last:x}" if last > first else "") + (f"/{step:x}" if step > 1 else "")
        if lines[-1] and len(lines[-1]) + len(span + rest) >= COLUMNS:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + span + rest
    return "\n".join(lines) + "\n"


def tables_text(tables: Tables, version: str) -> str:
    """The file that UnicodeTables.kt reads."""
    decomposed = {point: f"={_points(text)}" for point, text in tables.decomposed.items()}
    order = {point: f"={rank:x}" for point, rank in tables.order.items()}
    return HEAD.format(version=version) + "".join((
        _section("removed", "by clean_text", _set_entries(tables.removed)),
        _section("space", "ends a word", _set_entries(tables.space)),
        _section("punctuation", "a word of its own", _set_entries(tables.punctuation)),
        _section("cjk", "a word of its own, by handle_chinese_chars", _set_entries(tables.cjk)),
        _section("lowercase", "by lowercase", _shift_entries(tables.lowercase)),
        _section("decomposed", "by strip_accents: what NFD makes of it, without nonspacing marks; Hangul is "
                 "not listed", _same_entries(decomposed)),
        _section("dropped", "by strip_accents: nonspacing marks", _set_entries(tables.dropped)),
        _section("dropped-starters", "of them, those that no other mark moves across",
                 _set_entries(tables.dropped_starters)),
        _section("order", "marks that stay, and their place in NFD's order (a lower number comes first)",
                 _same_entries(order)),
    ))  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write the Android app's table of characters.")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="the file to write (%(default)s)")
    out = parser.parse_args(arguments).out
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(tables_text(ask_tables(), version_of("tokenizers")), encoding="utf-8")
    print(f"wrote {out}, {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
