"""Model folders are refused with the reason before anything heavy opens them."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.errors import UsageError
from stillroom.model_folder import (
    PADDED_ROWS,
    ModelFolder,
    check_model_folder,
    check_vocabulary,
    head_labels,
    match_labels,
    safetensors_shapes,
)
from stillroom.student import load_model, load_student


@pytest.fixture
def folder(tiny_teacher: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_teacher, tmp_path / "model"))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "model.safetensors"


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), encoding="utf-8")


def refusal(folder: Path) -> str:
    with pytest.raises(UsageError) as caught:
        check_model_folder(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_a_whole_folder(folder: Path) -> None:
    from safetensors.torch import load_file

    checked = check_model_folder(folder)
    wanted = {name: tuple(value.shape) for name, value in load_file(folder / "model.safetensors").items()}
    assert checked.tensors == wanted and checked.path == folder
    assert checked.config["model_type"] == "bert"
    assert head_labels(checked) == ("good", "bad")


def test_no_folder(tmp_path: Path) -> None:
    assert "no model folder at" in refusal(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x", encoding="utf-8")
    assert "no model folder at" in refusal(tmp_path / "file")


def test_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert "has no config.json" in refusal(folder)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not valid JSON"),
        ("", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"hidden_size": ' + "9" * 5000 + "}", "not valid JSON"),
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
    ],
    ids=["open", "empty", "deep", "huge number", "list", "null"],
)
def test_a_config_that_is_none(content: str, reason: str, folder: Path) -> None:
    (folder / "config.json").write_text(content, encoding="utf-8")
    assert reason in refusal(folder)


@pytest.mark.parametrize("model_type", ["gpt2", "", None, "BERT", 7])
def test_model_types_that_are_not_read(model_type: Any, folder: Path) -> None:
    edit_config(folder, model_type=model_type)
    with pytest.raises(UsageError, match="is not supported: expected one of bert, distilbert, roberta"):
        check_model_folder(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "best.ckpt"])
def test_only_a_pickle(name: str, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / name)
    (folder / "optimizer.pt").touch()
    reason = refusal(folder)
    assert f"has only {name}, a pickle, which can run code" in reason and "save_pretrained" in reason


@pytest.fixture
def sharded(folder: Path) -> Path:
    """The same model in several files and an index of them."""
    model = load_model(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="60KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


def test_a_model_in_several_files_is_the_same_model(sharded: Path, tiny_teacher: Path) -> None:
    assert check_model_folder(sharded).tensors == check_model_folder(tiny_teacher).tensors
    weights, wanted = load_model(sharded).state_dict(), load_model(tiny_teacher).state_dict()
    assert all((weights[name] == value).all() for name, value in wanted.items())
    before = load_student(sharded).weights_sha256
    file = min(sharded.glob("*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert load_student(sharded).weights_sha256 != before


@pytest.mark.parametrize("name", ["../other/model.safetensors", "absent.safetensors"])
def test_an_index_that_leads_elsewhere(name: str, sharded: Path, tiny_teacher: Path) -> None:
    (sharded.parent / "other").mkdir()
    shutil.copyfile(tiny_teacher / "model.safetensors", sharded.parent / "other" / "model.safetensors")
    place = sharded / "model.safetensors.index.json"
    index = json.loads(place.read_text("utf-8"))
    index["weight_map"]["classifier.weight"] = name
    place.write_text(json.dumps(index), encoding="utf-8")
    assert f"names '{name}', which is not in its folder" in refusal(sharded)


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": {"a": 1}}'])
def test_an_index_that_is_none(content: str, sharded: Path) -> None:
    (sharded / "model.safetensors.index.json").write_text(content, encoding="utf-8")
    assert "not an index" in refusal(sharded)


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "has no weights" in refusal(folder)


def test_no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert "has no tokenizer" in refusal(folder)


def test_truncated_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    size_bytes = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size_bytes - 1)
    assert f"not a whole safetensors file: {size_bytes - 1} bytes on disk, {size_bytes} announced" in refusal(
        folder
    )


def test_a_broken_second_file(folder: Path) -> None:
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"")
    assert "model-00002-of-00002.safetensors is not a whole" in refusal(folder)


def header(value: Any, data: bytes = b"") -> bytes:
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return struct.pack("<Q", len(content)) + content + data


WHOLE = header(
    {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]},
        "b": {"dtype": "F32", "shape": [], "data_offsets": [8, 12]},
    },
    bytes(12),
)


def test_shapes_of_a_small_file(scratch: Path) -> None:
    scratch.write_bytes(WHOLE)
    assert safetensors_shapes(scratch) == {"a": (2, 1), "b": ()}


@given(st.integers(0, len(WHOLE) - 1))
def test_every_truncation_is_seen(scratch: Path, size: int) -> None:
    scratch.write_bytes(WHOLE[:size])
    with pytest.raises(UsageError, match="not a whole safetensors file"):
        safetensors_shapes(scratch)


@pytest.mark.parametrize(
    "content",
    [
        WHOLE + b"x",
        struct.pack("<Q", 2**63) + b"{}",
        header([]),
        header("text"),
        header({"a": 1}),
        header({"a": {"shape": [1]}}),
        header({"a": {"shape": [1], "data_offsets": [0]}}),
        header({"a": {"shape": [1], "data_offsets": ["0", "4"]}}),
        header({"a": {"shape": 1, "data_offsets": [0, 0]}}),
        header(b"\xff\xfe\xfd"),
        header(b"[" * 100_000),
        header(b'{"a": ' * 100_000),
    ],
)
def test_headers_that_are_none(content: bytes, scratch: Path) -> None:
    scratch.write_bytes(content)
    with pytest.raises(UsageError, match="not a whole safetensors file"):
        safetensors_shapes(scratch)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["a", "shape", "data_offsets", "__metadata__"]), inner, max_size=3),
)  # fmt: skip


@given(st.binary(max_size=60) | junk.map(header))
def test_any_other_bytes_are_refused_or_have_shapes(scratch: Path, content: bytes) -> None:
    scratch.write_bytes(content)
    try:
        shapes = safetensors_shapes(scratch)
    except UsageError:
        return
    assert all(isinstance(shape, tuple) for shape in shapes.values())


@pytest.mark.parametrize(
    ("rows", "size", "largest", "fits"),
    [
        (100, 100, 99, True),
        (100, 100, 100, False),  # an id without an embedding
        (100, 50, 120, False),
        (100 + PADDED_ROWS, 100, 99, True),
        (101 + PADDED_ROWS, 100, 99, False),
    ],
)
def test_vocabulary_and_embeddings(rows: int, size: int, largest: int, fits: bool, tmp_path: Path) -> None:
    places: list[tuple[dict[str, Any], dict[str, tuple[int, ...]]]] = [
        ({}, {"bert.embeddings.word_embeddings.weight": (rows, 8)}),
        ({"vocab_size": rows}, {}),
        ({"vocab_size": 7}, {"embeddings.word_embeddings.weight": (rows, 8)}),
    ]
    for config, tensors in places:
        if fits:
            check_vocabulary(ModelFolder(tmp_path, config, tensors), size, largest)
            continue
        with pytest.raises(UsageError, match=rf"{size} tokens \(largest id {largest}\).*{rows} embedding"):
            check_vocabulary(ModelFolder(tmp_path, config, tensors), size, largest)


def test_heads(make_model_folder: Callable[..., Path], tiny_bert: Path, tmp_path: Path) -> None:
    assert head_labels(check_model_folder(tiny_bert)) is None
    for family in ("distilbert", "roberta"):
        made = make_model_folder(tmp_path / family, family, ("a", "b", "c"), layers=1)
        assert head_labels(check_model_folder(made)) == ("a", "b", "c")


def test_heads_by_their_config(tmp_path: Path) -> None:
    tensors: dict[str, tuple[int, ...]] = {"classifier.weight": (2, 8)}

    def labels(**config: Any) -> tuple[str, ...] | None:
        plain = {"architectures": ["BertForSequenceClassification"]}
        return head_labels(ModelFolder(tmp_path, {**plain, **config}, tensors))

    assert labels() == ("LABEL_0", "LABEL_1")
    assert labels(id2label={"0": "no", "1": "yes"}) == ("no", "yes")
    assert labels(id2label={"1": "yes"}) == ("LABEL_0", "yes")
    assert labels(id2label={"0": "no", "1": "yes", "2": "left over"}) == ("no", "yes")
    assert labels(architectures=["BertForTokenClassification"]) is None  # its head is called the same
    assert labels(architectures=None) is None
    with pytest.raises(UsageError, match="id2label is not an object"):
        labels(id2label=["no", "yes"])


words = st.lists(st.text(min_size=1, max_size=6), min_size=2, max_size=6, unique=True)


@given(words, st.randoms(use_true_random=False))
def test_the_same_labels_match_in_the_head_s_order(labels: list[str], chance: Any) -> None:
    shuffled = labels.copy()
    chance.shuffle(shuffled)
    assert match_labels(tuple(labels), tuple(shuffled)) == tuple(labels)
    assert match_labels(tuple(labels), (*shuffled[1:], f"{shuffled[0]}'")) is None
    assert match_labels(tuple(labels), tuple(shuffled[1:])) is None


def test_case_does_not_make_another_label() -> None:
    assert match_labels(("NEGATIVE", "Positive"), ("positive", "negative")) == ("negative", "positive")
    assert match_labels(("a", "A"), ("A", "a")) == ("a", "A")
    assert match_labels(("A", "B"), ("a", "A")) is None
    assert match_labels(("A", "A"), ("a", "b")) is None


@given(st.integers(2, 12), st.randoms(use_true_random=False))
def test_unnamed_heads_match_integers_from_zero(count: int, chance: Any) -> None:
    head = tuple(f"LABEL_{index}" for index in range(count))
    integers = [str(index) for index in range(count)]
    chance.shuffle(integers)
    assert match_labels(head, tuple(integers)) == tuple(str(index) for index in range(count))
    assert match_labels(head, tuple(str(index + 1) for index in range(count))) is None
    assert match_labels(head[1:] + head[:1], tuple(integers)) is None


def test_weights_that_do_not_fit_the_config(folder: Path) -> None:
    edit_config(folder, intermediate_size=128)
    with pytest.raises(UsageError, match="could not be loaded"):
        load_model(folder)


@pytest.mark.parametrize("value", ["many", [4], None])
def test_a_config_of_the_wrong_types_is_refused_when_loaded(value: Any, folder: Path) -> None:
    edit_config(folder, num_attention_heads=value)
    with pytest.raises(UsageError):
        load_model(folder)
    with pytest.raises(UsageError):
        load_student(folder)


def without(folder: Path, part: str) -> Path:
    """The folder, without the weights whose names begin with part."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    weights = {name: value for name, value in load_file(path).items() if not name.startswith(part)}
    save_file(weights, path, metadata={"format": "pt"})
    return folder


# transformers fills what is missing with random numbers and says so only in its log.
@pytest.mark.parametrize("part", ["bert.encoder.layer.3.", "bert.embeddings.", "classifier.", "bert.pooler."])
def test_missing_weights_are_not_made_up(part: str, folder: Path) -> None:
    with pytest.raises(UsageError):
        load_model(without(folder, part))


def test_layers_the_config_does_not_know_are_not_left_out(folder: Path) -> None:
    edit_config(folder, num_hidden_layers=3)
    with pytest.raises(UsageError, match=r"layer\.3"):
        load_model(folder)


@pytest.mark.parametrize("part", ["bert.encoder.layer.3.", "bert.embeddings."])
def test_a_new_head_does_not_excuse_a_missing_encoder(part: str, folder: Path) -> None:
    with pytest.raises(UsageError):
        load_model(without(folder, part), num_labels=3, ignore_mismatched_sizes=True)


# Published encoders have no classifier, and those trained on masked words have no pooler either.
@pytest.mark.parametrize("part", ["nothing", "classifier.", "bert.pooler."])
def test_a_new_head_may_be_missing_with_its_pooler(part: str, folder: Path) -> None:
    model = load_model(without(folder, part), num_labels=3, ignore_mismatched_sizes=True)
    assert model.classifier.weight.shape == (3, 32)
