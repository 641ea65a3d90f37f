"""The app's tokenizer against Hugging Face's: the same ids and type ids for every text there is to try.

The texts are hypothesis's, over all of Unicode, the golden texts and the demo's test tweets; then every code
point once. Needs the tools of build/android, and fails without them; texts and vocabulary come with packages.
"""

from __future__ import annotations

import importlib.util
import itertools
import operator
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.export.android.toolchain import load_toolchain
from stillroom.export.android.unicode_tables import DEFAULT_OUT, Tables, ask_tables, code_points, tables_text
from stillroom.export.golden import GOLDEN_TEXTS
from stillroom.export.wordpiece import vocabulary_lines, wordpiece_settings, wordpiece_tokenizer
from stillroom.extras import version_of

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location(
    "kotlin_tokenizer", ROOT / "docs" / "experiments" / "kotlin_tokenizer.py"
)
assert SPEC is not None and SPEC.loader is not None
kotlin: Any = importlib.util.module_from_spec(SPEC)
sys.modules["kotlin_tokenizer"] = kotlin  # dataclasses look their module up
SPEC.loader.exec_module(kotlin)

WANTED = 20_000  # distinct texts of hypothesis
EXAMPLES, PIECES = 2500, 20  # that hypothesis draws; many are drawn twice
NO_LIMIT = 100_000  # tokens
BATCH = 1000  # encodings of Hugging Face's in memory at once
SWITCHES = ("lowercase", "strip_accents", "clean_text", "handle_chinese_chars")


@pytest.fixture(scope="module")
def classpath(tmp_path_factory: pytest.TempPathFactory) -> str:
    classes = tmp_path_factory.mktemp("classes")
    return str(kotlin.compile_tokenizer(load_toolchain(ROOT / "build" / "android"), classes))


@pytest.fixture(scope="module")
def tables() -> Tables:
    return ask_tables()


@pytest.fixture(scope="module")
def demo() -> Any:
    """The demo's tokenizer as the app gets it, without texts."""
    document = kotlin.demo_tokenizer()
    return kotlin.Cases(vocabulary_lines(document), wordpiece_settings(document), 128, [])


@pytest.fixture(scope="module")
def rich(demo: Any, tables: Tables) -> Any:
    """The same with every character that some rule knows as a word and as a piece: else most were [UNK]."""
    points = {point for part in vars(tables).values() for point in part if point > ord(" ")}
    points |= {*range(0x1100, 0x1200), *range(0xFFF0, 0x10000)}
    points -= {*tables.cjk, *range(0xE000, 0xF900), *range(0xF0000, 0x110000)}  # too many, all alike
    becomes = "".join([*tables.lowercase.values(), *tables.decomposed.values()])
    known = sorted({*map(chr, points), *becomes})
    return replace(demo, lines=list(dict.fromkeys([*demo.lines, *known, *(f"##{one}" for one in known)])))


def one_of_these(chars: str) -> st.SearchStrategy[str]:
    return st.text(st.sampled_from(chars), min_size=1, max_size=6)


def pieces_of(words: Sequence[str], tables: Tables) -> st.SearchStrategy[str]:
    """Characters, words, and what else texts are made of, spaces among them."""
    marks = st.characters(categories=("Mn", "Mc", "Me"))
    ordered = st.sampled_from(sorted(map(chr, [*tables.order, *list(tables.dropped_starters)[:40]])))
    changing = st.sampled_from(sorted(map(chr, {*tables.lowercase, *tables.decomposed})))
    word = st.sampled_from(words)
    return st.one_of(
        st.characters(exclude_categories=("Cs",)),
        st.text(st.characters(exclude_categories=("Cs", "Cn", "Co")), max_size=4),
        st.tuples(st.characters(categories=("L",)), st.text(marks, max_size=4)).map("".join),
        st.text(ordered, min_size=2, max_size=5),
        st.text(changing, max_size=3),
        st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF), max_size=3),
        st.text(st.characters(min_codepoint=0xF900, max_codepoint=0xFAFF), max_size=2),
        st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), max_size=3),
        one_of_these("اآبپتثجچحخدذرزژسشصضطظعغفقکگلمنوهیيكةئء۰۱۲ًٌٍَُِّْٰ\u200c\u200d\u200f،؛؟«»"),
        one_of_these("😀🎉❤\ufe0f\u200d👨👩👧🏽🇮🇷☺♀⚽1\u20e3"),
        st.text(st.characters(max_codepoint=0xA0, categories=("Cc", "Zs")), max_size=3),
        st.text(st.characters(categories=("P", "S")), max_size=3),
        word, word, word.map(str.upper), word.map(str.title), word.map(lambda one: one.removeprefix("##")),
        st.tuples(word, st.sampled_from("abcxyz019'-")).map("".join),
        st.sampled_from(("[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", "[cls]", "[ CLS]", "[CLS", "CLS]",
                         "[[SEP]]", "[MASK][MASK]", "##s", "[MA\u200bSK]", "[unused1]")),
        st.builds(operator.mul, st.sampled_from("aZé中각1"), st.integers(97, 103)),
        st.builds(operator.mul, st.sampled_from(("ab", "e\u0301", "\u302e\U0001d165")), st.integers(45, 60)),
        st.sampled_from((" ", " ", " ", "  ", "\t", "\n", "\u3000")),
    )  # fmt: skip


@pytest.fixture(scope="module")
def texts(demo: Any, tables: Tables) -> list[str]:
    """Golden texts, tweets, and what hypothesis makes: the same texts in every run."""
    found: dict[str, None] = {}
    piece = pieces_of([line for line in demo.lines if not line.startswith("[")], tables)

    @settings(derandomize=True, database=None, max_examples=EXAMPLES)
    @given(st.lists(piece, min_size=PIECES, max_size=PIECES))
    def collect(pieces: list[str]) -> None:
        # A short text and a long one from every place on: far more than if each were drawn by itself.
        for at in range(PIECES):
            found.update(dict.fromkeys("".join(pieces[at : at + size]) for size in (1 + at % 3, 4 + at % 4)))

    collect()
    assert len(found) >= WANTED
    return [*GOLDEN_TEXTS, *kotlin.demo_texts(), *found]


def differences(classpath: str, all_cases: Sequence[Any], folder: Path) -> tuple[int, list[str]]:
    """How many texts were compared, and those with other ids or type ids than Hugging Face's."""
    compared, found = 0, []
    rows = kotlin.encode(classpath, all_cases, folder)
    for cases in all_cases:
        tokenizer = wordpiece_tokenizer(cases.settings, list(cases.lines), cases.max_length)
        on = [name for name in SWITCHES if cases.settings[name]]
        for start in range(0, len(cases.texts), BATCH):
            some = cases.texts[start : start + BATCH]
            asked = [text if pair is None else (text, pair) for text, pair in some]
            for text, wanted in zip(asked, tokenizer.encode_batch_fast(asked), strict=True):
                ids, type_ids = next(rows)
                compared += 1
                if ids != wanted.ids or type_ids != wanted.type_ids:
                    found.append(f"{text!a} {on} {cases.max_length}: {ids}, wanted {wanted.ids}")
    assert next(rows, None) is None
    return compared, found


def switched(cases: Any, **settings: bool) -> Any:
    return replace(cases, settings={**cases.settings, **settings})


def cased(cases: Any) -> Any:
    """As a cased model has it: nothing is lowercased, and accents stay."""
    return switched(cases, lowercase=False, strip_accents=False)


def singles(texts: Sequence[str]) -> list[tuple[str, None]]:
    return [(text, None) for text in texts]


def pairs(texts: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(texts, [*texts[1:], *texts[:1]], strict=True))


def test_all_texts_cased_and_uncased_alone_and_in_pairs(
    classpath: str, demo: Any, rich: Any, texts: list[str], tmp_path: Path
) -> None:
    all_cases = [
        replace(variant, texts=asked(some))
        for base, some in ((rich, texts), (demo, texts[: len(texts) // 4]))
        for variant in (base, cased(base))
        for asked in (singles, pairs)
    ]
    compared, found = differences(classpath, all_cases, tmp_path)
    assert compared >= 4 * WANTED
    assert found == []


def test_every_rule_by_itself(classpath: str, rich: Any, texts: list[str], tmp_path: Path) -> None:
    all_cases = [
        replace(switched(rich, **dict(zip(SWITCHES, on, strict=True))), texts=singles(texts[index::16]))
        for index, on in enumerate(itertools.product((False, True), repeat=len(SWITCHES)))
    ]
    compared, found = differences(classpath, all_cases, tmp_path)
    assert compared >= WANTED
    assert found == []


def test_lengths(classpath: str, demo: Any, texts: list[str], tmp_path: Path) -> None:
    """What is cut off. Only short texts are cut to a few tokens: Hugging Face's library keeps all it cuts."""
    some = [text for text in texts[::8] if len(text) <= 30]
    long = [text * (1 + 300 // len(text)) for text in texts[::40] if text]
    all_cases = [replace(demo, max_length=length, texts=singles(some)) for length in (2, 3, 5, 16)]
    all_cases += [replace(demo, max_length=length, texts=pairs(some)) for length in (3, 4, 5, 6, 7, 16)]
    all_cases += [replace(demo, max_length=length, texts=pairs(long)) for length in (61, 64)]
    # By as much, or one more or less: where an odd token goes.
    counted = [("a " * one, "b " * other) for one, other in itertools.product(range(9), repeat=2)]
    all_cases += [replace(demo, max_length=length, texts=counted) for length in range(3, 20)]
    compared, found = differences(classpath, all_cases, tmp_path)
    assert compared > 10 * len(some)
    assert found == []


def test_other_settings(classpath: str, rich: Any, texts: list[str], tmp_path: Path) -> None:
    """A prefix, a longest word and added tokens other than BERT's, some of which begin alike or change."""
    lines = [line.replace("##", "@@", 1) if line.startswith("##") else line for line in rich.lines]
    new = ("[MASK]s", "É!", "😀", " a", "[MASK", "😀\u200d")
    added = {token: lines.index(token) for token in ("[MASK]", "é", "[")}
    added |= {token: len(lines) + index for index, token in enumerate(new)}
    lines += [f"[no token {token}]" for token in range(len(lines), len(lines) + len(new))]
    long = [one * count for one in ("a", "😀a", "각", "\u1d165", "\u302e\u1d165") for count in range(1, 12)]
    some = [*long, *(text + token + text for text in texts[::100] for token in added), *texts[::30]]
    settings = {**rich.settings, "prefix": "@@", "max_word_chars": 7, "added": added}
    plain = {**rich.settings, "prefix": "", "max_word_chars": 1, "added": {}}
    all_cases = [
        replace(rich, lines=lines, settings=settings, texts=singles(some)),
        cased(replace(rich, lines=lines, settings=settings, texts=pairs(some))),
        replace(rich, settings=plain, texts=singles(some)),
        replace(rich, settings={**plain, "max_word_chars": 100}, texts=singles(some)),
    ]
    assert differences(classpath, all_cases, tmp_path)[1] == []


def joined(texts: Sequence[str]) -> list[tuple[str, None]]:
    """Many to a text: far fewer are quicker to encode."""
    return singles([" ".join(texts[start : start + 64]) for start in range(0, len(texts), 64)])


def test_every_code_point(classpath: str, rich: Any, tmp_path: Path) -> None:
    asked = joined([f"a{chr(point)}b" for point in code_points()])
    all_cases = [replace(one, max_length=NO_LIMIT, texts=asked) for one in (rich, cased(rich))]
    assert differences(classpath, all_cases, tmp_path)[1] == []


def test_every_code_point_that_a_rule_knows(
    classpath: str, rich: Any, tables: Tables, tmp_path: Path
) -> None:
    """Each as a word, after a letter, before a letter, and with marks of either kind on both sides of it."""
    sets = [set(points) for name, points in vars(tables).items() if name not in ("cjk", "removed")]
    some = [*sorted(tables.cjk)[::16], *sorted(tables.removed)[:500], *range(0xAC00, 0xD7A4, 7)]
    points = sorted(set().union(*sets, some))
    asked = joined([f"{one} a{one} {one}b \u302e{one}\U0001d165\u0301" for one in map(chr, points)])
    variants = (rich, cased(rich), switched(rich, lowercase=False), switched(rich, clean_text=False))
    all_cases = [replace(one, max_length=NO_LIMIT, texts=asked) for one in variants]
    assert differences(classpath, all_cases, tmp_path)[1] == []


def test_lone_surrogates_count_as_replacement_characters(classpath: str, rich: Any, tmp_path: Path) -> None:
    """No valid text has them, so Hugging Face's library takes none; Java's strings can hold them."""
    broken = ["a\ud800b", "\udc00", "a \udfff\ud83d", "[CLS\ud83d]", "\ud83d\U0001f600x", "x\ude00\ud83d"]
    valid = ["a\ufffdb", "\ufffd", "a \ufffd\ufffd", "[CLS\ufffd]", "\ufffd\U0001f600x", "x\ufffd\ufffd"]
    variants = (rich, cased(rich), switched(rich, clean_text=False))
    cases = [replace(one, texts=singles(texts)) for texts in (broken, valid) for one in variants]
    rows = list(kotlin.encode(classpath, cases, tmp_path))
    assert rows[: len(rows) // 2] == rows[len(rows) // 2 :]
    assert differences(classpath, cases[len(variants) :], tmp_path)[1] == []


def test_nothing_is_allocated_for_a_character(classpath: str, demo: Any) -> None:
    """Only the answer is: pairs that are ten times as long, and cut to as many tokens, take no more.

    Pairs are read to their end, to know which is longer.
    """
    allocated = []
    for times in (100, 1000):
        some = ["The crew was wonderful, \u00c9lan! 中文 각 😀 e\u0301" * times] * 50
        cases = replace(demo, max_length=64, texts=pairs(some))
        (rounds,) = kotlin.measure(classpath, cases, warmup=5, rounds=3, processes=1)
        tokens = rounds[-1]["tokens"]
        assert tokens == 64 * len(some)
        allocated.append(min(one["allocated_bytes"] for one in rounds) / len(some))
    answer_bytes = 2 * (16 + 4 * 64) + 24  # two arrays and the object that holds them
    assert allocated == pytest.approx([answer_bytes, answer_bytes], rel=0.1)


def test_the_table_is_what_the_generator_writes(tables: Tables) -> None:
    assert DEFAULT_OUT.read_text("utf-8") == tables_text(tables, version_of("tokenizers"))
