"""The tokenizer as part of an ONNX graph, which then takes a text, or a pair of texts.

Of onnxruntime-extensions, the packages for Android and iOS hold one operator that makes BERT's word pieces,
ai.onnx.contrib::BertTokenizer. By itself it answers otherwise than the tokenizer file: of a word whose end is
unknown it gives the beginning and [UNK], it strips the accents of a list of letters instead of by NFD, and it
takes "[SEP]" in a text for a word in brackets. So it is left the one thing that it does alike: to cut a word
into the longest pieces of the vocabulary. What comes before is done by onnxruntime's own operators, with
tables read off the tokenizer file one character at a time; and so is what comes after: [UNK] for the whole
word, the cut to max_length, [CLS] and [SEP].

The ids are then those of the tokenizer file for every text. A file for which they would not be is refused:
one of another kind, or one with a vocabulary that spells two marks which NFD sorts (a table of single
characters cannot sort; with no pieces for such marks, their word is [UNK] in any order).

Operators: BertTokenizer in onnxruntime-extensions' docs/custom_ops.md, com.microsoft.Tokenizer in
onnxruntime's docs/ContribOperators.md, the others in ONNX opset 20. The tokenizer file: BertNormalizer,
BertPreTokenizer and WordPiece of Hugging Face's tokenizers.
"""

from __future__ import annotations

import itertools
import json
import unicodedata
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.errors import UsageError
from stillroom.task import TaskSpec
from stillroom.tokens import encode_one, tokenizer_from_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

OLDEST_OPSET = 20  # the first with StringConcat and RegexFullMatch
DOMAINS = {"ai.onnx.ml": 3, "ai.onnx.contrib": 1, "com.microsoft": 1}
LONGEST_WORD = 100  # characters; BertTokenizer has it built in
PARTS = {"model": "WordPiece", "normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer"}
BLOCK = 256  # characters looked at together

# In ONNX's own syntax; _front puts numbers, tables and patterns in. Its way: texts to characters; each to
# what the tokenizer makes of it, with a border where a word ends or begins; all joined to one line, two by
# two; the line to pieces; words with an unknown end to [UNK]; the pieces of each text apart; cut and put
# together. Two types are said, because onnx's inference of types crashes on LabelEncoder without the first.
GRAPH = """
<ir_version: 10, opset_import: ["": {opset}]>
front (string[texts] text) => ({outputs})
<string[texts, longest] characters, int64[many] raw> {{
  characters = com.microsoft.Tokenizer (text)
  found = ai.onnx.ml.LabelEncoder (characters)
  unchanged = Equal (found, nothing)
  written = Where (unchanged, characters, found)
  is_word = RegexFullMatch (written)
  opened = StringConcat (border, written)
  closed = StringConcat (opened, border)
  framed = Where (is_word, closed, written)
  ended = Concat <axis = 1> (framed, ends)
  parts = Reshape (ended, minus_one)
  line = Loop <body = join (int64 turn, bool go, string[many] some) => (bool more, string[fewer] joined) {{
    empty = Constant <value_strings = [""]> ()
    from_0 = Constant <value_ints = [0]> ()
    from_1 = Constant <value_ints = [1]> ()
    by_2 = Constant <value_ints = [2]> ()
    padded = Concat <axis = 0> (some, empty)
    padded_size = Shape (padded)
    even = Slice (some, from_0, padded_size, from_0, by_2)
    odd = Slice (padded, from_1, padded_size, from_0, by_2)
    joined = StringConcat (even, odd)
    joined_size = Shape (joined)
    is_more = Greater (joined_size, from_1)
    more = Squeeze (is_more)
  }}> ("", yes, parts)
  raw, raw_types, raw_mask = ai.onnx.contrib.BertTokenizer (line)
  pieces = Slice (raw, one, minus_one)
  is_mark = GreaterOrEqual (pieces, end_id)
  mark = Cast <to = 7> (is_mark)
  word = CumSum <exclusive = 1> (mark, scalar_zero)
  is_unknown = Equal (pieces, unknown_id)
  unknown = Cast <to = 7> (is_unknown)
  size = Shape (pieces)
  none = Expand (zero, size)
  unknown_words = ScatterElements <reduction = "max"> (none, word, unknown)
  in_unknown = Gather (unknown_words, word)
  is_beginning = Greater (in_unknown, unknown)
  dropped = Or (is_mark, is_beginning)
  kept = Not (dropped)
  is_end = Equal (pieces, end_id)
  end = Cast <to = 7> (is_end)
  which = CumSum (end, scalar_zero)
  is_first = Equal (which, scalar_zero)
  in_first = And (is_first, kept)
  first = Compress (pieces, in_first)
  {cut}
  ids_size = Shape (ids)
  mask = Expand (one, ids_size)
  input_ids = Unsqueeze (ids, zero)
  attention_mask = Unsqueeze (mask, zero)
  {types}
}}"""
CUT_ONE = """
  first_cut = Slice (first, zero, room)
  ids = Concat <axis = 0> (opening_id, first_cut, closing_id)"""
# tokenizers' "longest_first": both to half of the room, or the longer to what the shorter leaves of it.
CUT_TWO = """
  is_second = Equal (which, scalar_one)
  in_second = And (is_second, kept)
  second = Compress (pieces, in_second)
  first_size = Shape (first)
  second_size = Shape (second)
  shorter = Min (first_size, second_size)
  twice = Mul (shorter, two)
  halved = Greater (twice, room)
  left_over = Sub (room, shorter)
  shorter_room = Where (halved, half, shorter)
  longer_room = Where (halved, other_half, left_over)
  swapped = Greater (first_size, second_size)
  first_room = Where (swapped, longer_room, shorter_room)
  second_room = Where (swapped, shorter_room, longer_room)
  first_cut = Slice (first, zero, first_room)
  second_cut = Slice (second, zero, second_room)
  ids = Concat <axis = 0> (opening_id, first_cut, closing_id, second_cut, closing_id)"""
TYPES = """
  place = CumSum <exclusive = 1> (mask, scalar_zero)
  first_cut_size = Shape (first_cut)
  first_last = Add (first_cut_size, one)
  is_later = Greater (place, first_last)
  types = Cast <to = 7> (is_later)
  token_type_ids = Unsqueeze (types, zero)"""


def add_tokenizer(model: Any, tokenizer: Tokenizer, task: TaskSpec) -> Any:
    """The onnx.ModelProto model (inputs task.inputs, int64 [batch, length] each), with tokenizer before it.

    Its input is text, string [1], or [2] where the task is of pairs; its output logits, float32 [1, labels].
    The same model and tokenizer give the same bytes. Raises UsageError for a model of an opset that is too
    old, and for a tokenizer whose answers the graph could not give.
    """
    import onnx

    versions = {entry.domain: int(entry.version) for entry in model.opset_import}
    if versions[""] < OLDEST_OPSET:
        raise UsageError(f"the model is of opset {versions['']}: wanted {OLDEST_OPSET} or newer")
    check_tokenizer(tokenizer, task)
    front = _front(tokenizer, task, versions[""])
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    whole.graph.ClearField("input")
    whole.graph.ClearField("node")
    whole.graph.input.extend(front.input)
    whole.graph.node.extend([*front.node, *model.graph.node])
    whole.graph.initializer.extend(front.initializer)
    whole.graph.value_info.extend(front.value_info)
    missing = {domain: version for domain, version in DOMAINS.items() if domain not in versions}
    whole.opset_import.extend(onnx.helper.make_opsetid(*entry) for entry in missing.items())
    return whole


def check_tokenizer(tokenizer: Tokenizer, task: TaskSpec) -> None:
    """Raise UsageError, with what is seen and wanted, unless the graph can answer as the tokenizer does."""
    facts = json.loads(tokenizer.to_str())
    for part, wanted in PARTS.items():
        if (seen := (facts[part] or {}).get("type")) != wanted:
            raise UsageError(f"the tokenizer's {part} is {seen}: to go into the graph it must be {wanted}")
    if not facts["normalizer"]["clean_text"]:
        raise UsageError(
            "the tokenizer's clean_text is off: wanted on, for BertTokenizer stops at a NUL character"
        )
    rules = facts["model"]
    if (longest := rules["max_input_chars_per_word"]) != LONGEST_WORD:
        raise UsageError(f"the tokenizer's max_input_chars_per_word is {longest}: wanted {LONGEST_WORD}")
    for token in facts["added_tokens"]:
        text = token["content"]
        bent = [name for name in ("single_word", "lstrip", "rstrip", "normalized") if token[name]]
        if text.startswith(rules["continuing_subword_prefix"]) or _words(tokenizer, text) == [text]:
            bent.append("a piece of plain words")
        if " " in text:
            bent.append("more than one word")
        if bent:
            raise UsageError(f"the tokenizer's added token {text!r} is {bent[0]}: wanted only such as [SEP]")
    _check_vocabulary(tokenizer, rules["unk_token"])
    encode_one(tokenizer, "", "" if task.pair else None)  # raises where max_length leaves no room
    ids, kinds = encode_one(tokenizer_from_json(tokenizer.to_str(), 16), "a", "a" if task.pair else None)
    opening, piece, closing = [*ids, None, None][:3]
    if ids != [opening, piece, closing, piece, closing][: 5 if task.pair else 3] or any(kinds[:3]):
        raise UsageError(f"the tokenizer makes {ids} of {'a, a' if task.pair else 'a'}: wanted [CLS] a [SEP]")


def _check_vocabulary(tokenizer: Tokenizer, unknown: str) -> None:
    vocabulary = tokenizer.get_vocab()
    if unknown not in vocabulary:
        raise UsageError(f"the vocabulary has no {unknown}, which is what unknown words become")
    for piece in vocabulary:
        if not piece or "\n" in piece or "\r" in piece:
            raise UsageError(f"the vocabulary has the piece {piece!r}: wanted only pieces of one line")
    marks = sorted({mark for piece in vocabulary for mark in piece if unicodedata.combining(mark)})
    normalize = tokenizer.normalizer.normalize_str
    for one, other in itertools.permutations(marks, 2):
        if normalize(one + other) != normalize(one) + normalize(other):
            raise UsageError(f"the vocabulary spells {one!a} and {other!a}, which the graph cannot sort")


def _words(tokenizer: Tokenizer, text: str) -> list[str]:
    normalized = tokenizer.normalizer.normalize_str(text)
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normalized)]


def character_table(tokenizer: Tokenizer, border: str) -> dict[str, str]:
    """Every character that the tokenizer changes or splits at -> what is in its place, before WordPiece.

    border stands where a word ends or begins: "a" for "Á", border for a space, "" for what is dropped.
    """
    table: dict[str, str] = {}
    for start in range(0, 0x110000, BLOCK):
        block = [chr(code) for code in range(start, start + BLOCK) if not 0xD800 <= code <= 0xDFFF]
        together = "".join(block)
        if not tokenizer.normalizer.normalize_str(together):
            table |= dict.fromkeys(block, "")
            continue
        if _words(tokenizer, together) == [together]:
            continue
        # Each between two letters that stay as they are, and a word of its own between two of them.
        words = _words(tokenizer, " z ".join(f"q{character}q" for character in block))
        groups = [[*group] for is_z, group in itertools.groupby(words, "z".__eq__) if not is_z]
        for character, group in zip(block, groups, strict=True):
            replaced = border.join(group)[1:-1]
            if replaced != character:
                table[character] = replaced
    return table


def _front(tokenizer: Tokenizer, task: TaskSpec, opset: int) -> Any:
    """The onnx.GraphProto from text to the model's inputs."""
    import onnx

    vocabulary = tokenizer.get_vocab()
    size, texts = max(vocabulary.values()) + 1, 2 if task.pair else 1
    # Two marks that no text can give, for their brackets are words of their own.
    edge, end = _unused(vocabulary, "[edge]"), _unused(vocabulary, "[end]")
    border = f" {edge} "
    model = onnx.parser.parse_model(
        GRAPH.format(
            opset=opset,
            outputs=", ".join(f"int64[1, length] {name}" for name in task.inputs),
            cut=CUT_TWO if task.pair else CUT_ONE,
            types=TYPES if "token_type_ids" in task.inputs else "",
        )
    )
    # BertTokenizer gives the second of two spaces to the word after it, which is always an edge.
    attributes = _attributes(tokenizer, border, (end, edge, f" {edge}"))
    for node in model.graph.node:
        named = attributes.get(node.op_type, {})
        node.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in named.items())
    opening, *_, closing = encode_one(tokenizer, "", "" if task.pair else None)[0]
    room = task.max_length - tokenizer.num_special_tokens_to_add(task.pair)
    unknown = vocabulary[json.loads(tokenizer.to_str())["model"]["unk_token"]]
    numbers: dict[str, int | list[int]] = {
        "zero": [0], "one": [1], "two": [2], "minus_one": [-1], "scalar_zero": 0, "scalar_one": 1,
        "end_id": size, "unknown_id": unknown, "opening_id": [opening], "closing_id": [closing],
        "room": [room], "half": [room // 2], "other_half": [room - room // 2],
    }  # fmt: skip
    constants = {
        **{name: np.array(value, dtype=np.int64) for name, value in numbers.items()},
        "yes": np.array(True),
        "nothing": np.array([""], dtype=object),
        "border": np.array([border], dtype=object),
        "ends": np.array([[f"{border}{end}{border}"]] * texts, dtype=object),
    }
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(value, name) for name, value in constants.items() if name in used
    )
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = texts
    # The model behind may use any of these names for its own values.
    return onnx.compose.add_prefix_graph(model.graph, "text.", rename_inputs=False, rename_outputs=False)


def _attributes(tokenizer: Tokenizer, border: str, marks: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Operator -> its attributes: all that is read off the tokenizer file."""
    vocabulary, facts = tokenizer.get_vocab(), json.loads(tokenizer.to_str())
    pieces = [f"[no piece {index}]" for index in range(max(vocabulary.values()) + 1)]
    for piece, index in vocabulary.items():
        pieces[index] = piece
    table = character_table(tokenizer, border)
    dropped = [character for character, text in table.items() if not text]
    words = [character for character, text in table.items() if text == f"{border}{character}{border}"]
    for character in (*dropped, *words):  # whole scripts, and short as ranges
        del table[character]
    added = sorted((token["content"] for token in facts["added_tokens"]), key=lambda it: (-len(it), it))
    table |= {token: f"{border}{token}{border}" for token in added}
    kept = f"[^{_ranges(dropped)}]" if dropped else "(?s:.)"
    unknown = facts["model"]["unk_token"]
    return {
        "Tokenizer": {
            "tokenexp": "|".join([*("".join(map(_escaped, token)) for token in added), kept]),
            "mark": 0, "mincharnum": 1, "pad_value": "",
        },
        "LabelEncoder": {
            "keys_strings": sorted(table), "values_strings": [table[key] for key in sorted(table)],
            "default_string": "",
        },
        "RegexFullMatch": {"pattern": f"[{_ranges(words)}]"},
        "BertTokenizer": {
            "vocab_file": "\n".join([*pieces, *marks]),
            "suffix_indicator": facts["model"]["continuing_subword_prefix"],
            "do_basic_tokenize": 0, "do_lower_case": 0, "strip_accents": 0, "tokenize_chinese_chars": 0,
            # It looks all of these up; what it puts around the pieces is cut off again.
            **{f"{name}_token": unknown for name in ("unk", "cls", "sep", "pad", "mask")},
        },
    }  # fmt: skip


def _unused(vocabulary: dict[str, int], name: str) -> str:
    while name in vocabulary:
        name = f"[{name}]"
    return name


def _escaped(character: str) -> str:
    return rf"\x{{{ord(character):x}}}"


def _ranges(characters: list[str]) -> str:
    """What stands between the brackets of a pattern (RE2) for these characters, which are in order."""
    groups = itertools.groupby(enumerate(characters), lambda it: ord(it[1]) - it[0])
    found = [[character for _, character in group] for _, group in groups]
    return "".join(f"{_escaped(run[0])}-{_escaped(run[-1])}" for run in found)
