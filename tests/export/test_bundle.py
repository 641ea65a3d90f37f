"""Bundles: what is written, what they answer, and that nothing tampered with is ever opened."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnxruntime
import pytest
import transformers
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import stillroom
from stillroom.artifact import Artifact
from stillroom.errors import CheckFailed, StillroomError, UsageError
from stillroom.export import bundle as bundle_module
from stillroom.export.bundle import Bundle, check_bundle, load_bundle, replay_goldens, write_bundle
from stillroom.export.golden import GOLDEN_TEXTS, GOLDEN_TOLERANCE
from stillroom.files import sha256_folder

LABELS = ("negative", "positive")
KINDS = ("bert-int8", "unigram-int8", "pair-fp32")
PROBABILITY_BOUNDS = {"bert-int8": 0.1, "unigram-int8": 0.1, "pair-fp32": 1e-4}
MODEL_FOLDERS: dict[str, tuple[str, bool]] = {
    "bert-int8": ("bert", False),
    "unigram-int8": ("xlm-roberta", False),
    "pair-fp32": ("bert", True),
}
FILES = ("golden.json", "labels.txt", "model.onnx", "tokenizer.json", "vocab.txt")

every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="session")
def bundles(
    exported: Callable[..., Artifact],
    model_folder: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """Kind -> a bundle. Shared: copy it before changing it."""
    found = {}
    for kind, (family, pair) in MODEL_FOLDERS.items():
        artifact = exported(family, "fp32" if pair else "int8-dynamic", pair=pair)
        found[kind] = tmp_path_factory.mktemp("bundle") / kind
        write_bundle(f"demo {kind}", artifact.folder, model_folder(family, pair=pair), found[kind])
    return found


@pytest.fixture
def tampered(bundles: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the single-text bundle, to be changed."""
    return Path(shutil.copytree(bundles["bert-int8"], tmp_path / "bundle"))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders whose model was opened since."""
    return recorded_opens(monkeypatch)


def recorded_opens(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    found: list[Path] = []

    def open_artifact(artifact: Artifact, threads: int) -> Any:
        found.append(artifact.folder)
        raise AssertionError("the model was opened before everything was checked")

    monkeypatch.setattr(bundle_module, "open_artifact", open_artifact)
    return found


def manifest_of(folder: Path) -> Any:
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def write_manifest(folder: Path, manifest: Any) -> None:
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def entry_of(manifest: Any, name: str) -> Any:
    return next(entry for entry in manifest["files"] if entry["file"] == name)


def sealed(folder: Path) -> Path:
    """Announce the files as they are now: what someone does who changes a bundle on purpose."""
    manifest = manifest_of(folder)
    for entry in [*manifest["files"], *manifest["artifacts"]]:
        content = (folder / entry["file"]).read_bytes()
        entry["sha256"], entry["size_bytes"] = hashlib.sha256(content).hexdigest(), len(content)
    write_manifest(folder, manifest)
    return folder


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())


# --- what is written


@every_kind
def test_what_a_bundle_holds(
    bundles: dict[str, Path], model_folder: Callable[..., Path], exported: Callable[..., Artifact], kind: str
) -> None:
    folder, (family, pair) = bundles[kind], MODEL_FOLDERS[kind]
    model, artifact = model_folder(family, pair=pair), exported(family, kind_scheme(kind), pair=pair)
    wanted = set(FILES) - ({"vocab.txt"} if kind == "unigram-int8" else set())
    assert {path.name for path in folder.iterdir()} == {*wanted, "manifest.json"}
    manifest = manifest_of(folder)
    assert {entry["file"] for entry in manifest["files"]} == wanted
    for entry in manifest["files"]:
        content = (folder / entry["file"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["size_bytes"] == len(content)
    assert (folder / "model.onnx").read_bytes() == artifact.path.read_bytes()
    assert (folder / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()
    assert manifest["schema_version"] == 3
    assert manifest["stillroom_version"] == stillroom.__version__
    assert manifest["name"] == f"demo {kind}"
    assert manifest["task"] == json.loads((model / "stillroom.json").read_text())["task"]
    assert manifest["pad_id"] == json.loads((model / "config.json").read_text())["pad_token_id"]
    assert manifest["tokenizer"]["kind"] == ("Unigram" if kind == "unigram-int8" else "WordPiece")
    assert manifest["golden"] == {"file": "golden.json", "count": 32, "max_abs_error": GOLDEN_TOLERANCE}
    assert manifest["lineage"] == {"teacher": {"model": "random"}, "seed": 0}
    (described,) = manifest["artifacts"]
    assert described["runtime"] == {"name": "onnxruntime", "version": onnxruntime.__version__}
    for key in described.keys() - {"runtime"}:
        assert json.loads(json.dumps(getattr(artifact, key))) == described[key]
    schema = Path(__file__).parents[2] / "docs" / "schemas" / "manifest.schema.json"
    jsonschema.Draft202012Validator(json.loads(schema.read_text(encoding="utf-8"))).validate(manifest)


def kind_scheme(kind: str) -> str:
    return "fp32" if kind == "pair-fp32" else "int8-dynamic"


@every_kind
def test_labels_in_the_order_of_the_logits(bundles: dict[str, Path], kind: str) -> None:
    assert (bundles[kind] / "labels.txt").read_bytes() == b"negative\npositive\n"


@pytest.mark.parametrize("kind", ["bert-int8", "pair-fp32"])
def test_a_line_of_the_vocabulary_is_an_id(bundles: dict[str, Path], kind: str) -> None:
    lines = (bundles[kind] / "vocab.txt").read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    vocabulary = json.loads((bundles[kind] / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    assert dict(enumerate(lines)) == {token_id: piece for piece, token_id in vocabulary.items()}
    # What a phone's tokenizer makes of the list: the ids of the golden vectors.
    phone = transformers.BertTokenizerLegacy(str(bundles[kind] / "vocab.txt"))
    for entry in json.loads((bundles[kind] / "golden.json").read_text("utf-8")):
        ids = phone(entry["text"], entry.get("pair"), truncation="longest_first", max_length=80)["input_ids"]
        assert ids == entry["input_ids"]


def test_a_line_of_the_vocabulary_is_an_id_even_where_ids_are_unused(
    exported: Callable[..., Artifact], model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    # A vocabulary file that names a word twice leaves such a hole; every id after it would be off by one.
    model = Path(shutil.copytree(model_folder("bert"), tmp_path / "model"))
    tokenizer = json.loads((model / "tokenizer.json").read_text("utf-8"))
    del tokenizer["model"]["vocab"]["flight"]
    (model / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    write_bundle("holes", exported("bert", "int8-dynamic").folder, model, tmp_path / "bundle")
    lines = (tmp_path / "bundle" / "vocab.txt").read_text("utf-8").split("\n")
    wrong = {
        piece: (token_id, lines[token_id])
        for piece, token_id in tokenizer["model"]["vocab"].items()
        if lines[token_id] != piece
    }
    assert wrong == {}


def test_writing_replaces_the_whole_folder_with_the_same_bytes(
    bundles: dict[str, Path], exported: Callable[..., Artifact], model_folder: Callable[..., Path],
    tampered: Path,
) -> None:  # fmt: skip
    (tampered / "left over.txt").write_text("from before")
    (tampered / "model.onnx").write_bytes(b"broken")
    artifact = exported("bert", "int8-dynamic")
    returned = write_bundle("demo bert-int8", artifact.folder, model_folder("bert"), tampered)
    assert sha256_folder(tampered) == sha256_folder(bundles["bert-int8"])
    assert returned == manifest_of(tampered)


def test_a_folder_of_other_things_is_not_replaced(
    exported: Callable[..., Artifact], model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("the only copy")
    with pytest.raises(UsageError, match=r"holds other files \(no manifest\.json\)"):
        write_bundle("other", exported("bert", "int8-dynamic").folder, model_folder("bert"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_artifact_of_another_model_is_refused(
    exported: Callable[..., Artifact], model_folder: Callable[..., Path], tampered: Path
) -> None:
    artifact, before = exported("bert", "int8-dynamic"), sha256_folder(tampered)
    for other in (model_folder("xlm-roberta"), model_folder("bert", seed=1)):
        with pytest.raises(UsageError, match=r"was not exported from .*: export it again"):
            write_bundle("other", artifact.folder, other, tampered)
        with pytest.raises(UsageError, match="was not exported from"):
            write_bundle("other", artifact.folder, other, tampered.parent / "new")
    assert sha256_folder(tampered) == before
    assert list(tampered.parent.iterdir()) == [tampered]


def test_a_changed_artifact_is_refused(
    exported: Callable[..., Artifact], model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    artifact = Path(shutil.copytree(exported("bert", "int8-dynamic").folder, tmp_path / "artifact"))
    content = bytearray((artifact / "model.onnx").read_bytes())
    content[-1] ^= 1
    (artifact / "model.onnx").write_bytes(content)
    with pytest.raises(UsageError, match="it was changed"):
        write_bundle("changed", artifact, model_folder("bert"), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == [artifact]


# --- what it answers


@every_kind
def test_answers_are_those_of_the_model(
    bundles: dict[str, Path], model_folder: Callable[..., Path], reference: Callable[..., np.ndarray],
    texts: tuple[str, ...], kind: str,
) -> None:  # fmt: skip
    (family, pair), bundle = MODEL_FOLDERS[kind], load_bundle(bundles[kind], threads=1)
    model = model_folder(family, pair=pair)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model, local_files_only=True)
    asked = []
    for text, second in zip(texts, [*texts[2:], "one", "two"], strict=True):
        if pair and not second:
            continue  # transformers drops an empty second text; ours keeps its separator
        encoded = tokenizer(
            text, second if pair else None, truncation=True, max_length=80, return_tensors="np",
            return_token_type_ids=True,
        )  # fmt: skip
        inputs = {name: encoded[name] for name in bundle.task.inputs}
        wanted = softmax(reference(model, **inputs)[0].astype(np.float64))
        found = bundle(text, second if pair else None)
        assert tuple(found.probabilities) == LABELS
        values = np.array(list(found.probabilities.values()))
        assert values.sum() == pytest.approx(1, abs=1e-9)
        assert np.abs(values - wanted).max() <= PROBABILITY_BOUNDS[kind], text
        assert found.label == LABELS[int(values.argmax())]
        if abs(wanted[0] - wanted[1]) > 0.2:
            assert found.label == LABELS[int(wanted.argmax())]
        assert found.tokens == encoded["input_ids"].shape[1]
        asked.append(wanted[0])
    assert np.ptp(asked) > 0.2  # one answer for all texts would not do


@every_kind
def test_goldens_replay_exactly_where_they_were_made(bundles: dict[str, Path], kind: str) -> None:
    bundle = load_bundle(bundles[kind])
    assert replay_goldens(bundle) <= 1e-6
    goldens = json.loads((bundles[kind] / "golden.json").read_text("utf-8"))
    assert [entry["text"] for entry in goldens] == list(GOLDEN_TEXTS)
    for entry in goldens:
        assert bundle(entry["text"], entry.get("pair")).label == entry["label"]


def test_one_text_or_two_as_the_task_wants(bundles: dict[str, Path]) -> None:
    single, pair = load_bundle(bundles["bert-int8"]), load_bundle(bundles["pair-fp32"])
    with pytest.raises(UsageError, match="classifies one text"):
        single("the flight was great", "the crew was bad")
    with pytest.raises(UsageError, match="classifies one text"):
        single("the flight was great", "")
    with pytest.raises(UsageError, match="classifies two texts"):
        pair("the flight was great")
    assert pair("the flight was great", "").label in LABELS


def test_a_lone_surrogate_is_refused(bundles: dict[str, Path]) -> None:
    single, pair = load_bundle(bundles["bert-int8"]), load_bundle(bundles["pair-fp32"])
    with pytest.raises(UsageError, match="the text is not valid Unicode at character 6"):
        single("great \ud83d flight")
    with pytest.raises(UsageError, match="the second text is not valid Unicode at character 0"):
        pair("great", "\udc00")


def test_the_facade_loads_bundles(bundles: dict[str, Path]) -> None:
    bundle = stillroom.load_bundle(str(bundles["bert-int8"]))
    assert isinstance(bundle, Bundle)
    assert bundle.folder == bundles["bert-int8"]
    assert bundle("the flight was great").label in LABELS
    with pytest.raises(AttributeError, match="no attribute 'load_bundel'"):
        stillroom.load_bundel  # noqa: B018  (the look-up is what is tested)


def test_neither_torch_nor_transformers_is_needed(bundles: dict[str, Path]) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'onnx', 'safetensors'): sys.modules[name] = None\n"
        "import stillroom\n"
        "print(stillroom.load_bundle(sys.argv[1])('the flight was great').label)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundles["bert-int8"])], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == load_bundle(bundles["bert-int8"])("the flight was great").label


# --- files tampered with


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_found(tampered: Path, opened: list[Path], name: str) -> None:
    content = bytearray((tampered / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tampered / name).write_bytes(content)
    with pytest.raises(UsageError, match=rf"{name} has sha256 .* it was changed"):
        load_bundle(tampered)
    assert not opened


@pytest.mark.parametrize("change", ["truncated", "emptied", "extended"])
@pytest.mark.parametrize("name", FILES)
def test_another_size_is_found(tampered: Path, opened: list[Path], name: str, change: str) -> None:
    content = (tampered / name).read_bytes()
    changed = {"truncated": content[:-1], "emptied": b"", "extended": content + b"\n"}[change]
    (tampered / name).write_bytes(changed)
    with pytest.raises(UsageError, match=rf"{name} has {len(changed)} bytes, {len(content)} were announced"):
        load_bundle(tampered)
    assert not opened


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_missing_file_is_found(tampered: Path, opened: list[Path], name: str) -> None:
    (tampered / name).unlink()
    with pytest.raises(UsageError, match=name):
        load_bundle(tampered)
    (tampered / name).mkdir()
    with pytest.raises(UsageError, match=name):
        load_bundle(tampered)
    assert not opened


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_link_leading_outside_is_refused(tampered: Path, opened: list[Path], name: str) -> None:
    outside = tampered.parent / "outside"
    (tampered / name).rename(outside)
    (tampered / name).symlink_to(outside)  # the content is right; the place is not
    with pytest.raises(UsageError, match=rf"unsafe path '{name}'"):
        load_bundle(tampered)
    (tampered / name).unlink()
    (tampered / name).symlink_to("nowhere")
    with pytest.raises(UsageError, match=name):
        load_bundle(tampered)
    assert not opened


def test_a_truncated_manifest_is_refused(tampered: Path, opened: list[Path]) -> None:
    content = (tampered / "manifest.json").read_bytes()
    for cut in range(0, len(content) - 2, 37):
        (tampered / "manifest.json").write_bytes(content[:cut])
        with pytest.raises(UsageError, match=r"manifest\.json is not valid JSON"):
            load_bundle(tampered)
    assert not opened


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(UsageError, match=r"is not a bundle: it has no manifest\.json"):
            load_bundle(path)


def test_a_damaged_model_with_a_right_checksum_is_refused(tampered: Path) -> None:
    content = (tampered / "model.onnx").read_bytes()
    (tampered / "model.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(UsageError, match=r"model\.onnx could not be opened"):
        load_bundle(sealed(tampered))


@pytest.mark.parametrize("content", [b"{}", b"[]", b"\xff\xfe", b"not a tokenizer"])
def test_a_damaged_tokenizer_with_a_right_checksum_is_refused(
    tampered: Path, opened: list[Path], content: bytes
) -> None:
    (tampered / "tokenizer.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"tokenizer\.json is not"):
        load_bundle(sealed(tampered))
    assert not opened


# --- manifests tampered with

Path_ = tuple[str | int, ...]
FREE = ("lineage", "tool_versions")  # objects whose keys are not ours to fix


def places(value: Any, at: Path_ = ()) -> Iterator[Path_]:
    """Where every value of a manifest is, but for those inside free objects."""
    yield at
    if at and at[-1] in FREE:
        return
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*at, key))


def value_at(manifest: Any, place: Path_) -> Any:
    for key in place:
        manifest = manifest[key]
    return manifest


def with_value(manifest: Any, place: Path_, value: Any) -> Any:
    """A copy of manifest with another value in one place."""
    if not place:
        return value
    changed = copy.deepcopy(manifest)
    value_at(changed, place[:-1])[place[-1]] = value
    return changed


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


OTHER_VALUES = (None, True, 17, 1.5, "x", "", [], ["x"], {}, {"x": 1}, -1, 0.0)
UNSAFE_NAMES = (
    "../x", "..", ".", "", "/etc/hostname", "a/b", "a\\b", "..\\x", "C:x", "\\\\host\\x", ".hidden", "x\0y",
    "model.onnx/", "./model.onnx", "ｍodel.onnx", "x" * 101, "~", "model.onnx ", "%2e%2e/x",
)  # fmt: skip


@st.composite
def spoiled(draw: st.DrawFn, manifest: Any) -> Any:
    """A manifest that is wrong in one place."""
    everywhere = list(places(manifest))
    ways = ("drop", "retype", "add", "name", "size", "checksum", "version")
    match draw(st.sampled_from(ways)):
        case "drop":
            place = draw(st.sampled_from([place for place in everywhere if place and type(place[-1]) is str]))
            changed = copy.deepcopy(manifest)
            del value_at(changed, place[:-1])[place[-1]]
            return changed
        case "retype":
            place = draw(st.sampled_from(everywhere))
            old = value_at(manifest, place)
            fitting = [
                value
                for value in OTHER_VALUES
                if type(value) is not type(old) and not (is_number(value) and is_number(old))
            ]
            return with_value(manifest, place, draw(st.sampled_from(fitting)))
        case "add":
            inside = [place for place in everywhere if isinstance(value_at(manifest, place), dict)]
            place = draw(st.sampled_from([place for place in inside if not place or place[-1] not in FREE]))
            known = value_at(manifest, place)
            key = draw(st.text(max_size=20).filter(lambda key: key not in known))
            return with_value(manifest, place, {**known, key: draw(st.sampled_from(OTHER_VALUES))})
        case "name":
            place = draw(st.sampled_from([place for place in everywhere if place and place[-1] == "file"]))
            return with_value(manifest, place, draw(st.sampled_from(UNSAFE_NAMES)))
        case "size":
            sizes = [place for place in everywhere if place[:1] == ("files",) and place[-1] == "size_bytes"]
            place = draw(st.sampled_from(sizes))
            right = value_at(manifest, place)
            return with_value(manifest, place, draw(st.integers().filter(lambda size: size != right)))
        case "checksum":
            sums = [
                place
                for place in everywhere
                if place and place[-1] == "sha256" and place[0] in ("files", "artifacts")
            ]
            place = draw(st.sampled_from(sums))
            right, at = value_at(manifest, place), draw(st.integers(0, 63))
            other = draw(st.sampled_from("0123456789abcdefABCDEFg").filter(lambda digit: digit != right[at]))
            return with_value(manifest, place, right[:at] + other + right[at + 1 :])
        case _:
            version = draw(st.one_of(st.integers(), st.floats(), st.text()).filter(lambda value: value != 1))
            return with_value(manifest, ("schema_version",), version)


patient = hypothesis_settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@patient
@given(data=st.data())
def test_no_spoiled_manifest_gets_as_far_as_the_model(
    bundles: dict[str, Path], tampered: Path, opened: list[Path], data: st.DataObject
) -> None:
    manifest = data.draw(spoiled(manifest_of(bundles["bert-int8"])))
    write_manifest(tampered, manifest)
    with pytest.raises(UsageError) as raised:
        load_bundle(tampered)
    assert str(raised.value).count("\n") == 0
    assert not opened


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@patient
@given(content=JSON.map(lambda value: json.dumps(value).encode()) | st.binary())
def test_anything_else_in_place_of_the_manifest_is_refused(
    tampered: Path, opened: list[Path], content: bytes
) -> None:
    (tampered / "manifest.json").write_bytes(content)
    with pytest.raises(UsageError):
        load_bundle(tampered)
    assert not opened


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000, '{"a":' * 100_000, "[" * 990 + "]" * 990, '{"schema_version": ' + "1" * 5000 + "}",
        '{"schema_version": NaN}', "\ufeff{}",
    ],
    ids=["deep list", "deep object", "rather deep", "huge number", "not a number", "byte order mark"],
)  # fmt: skip
def test_json_made_to_break_readers_is_refused(tampered: Path, opened: list[Path], content: str) -> None:
    (tampered / "manifest.json").write_text(content, encoding="utf-8")
    with pytest.raises(UsageError):
        load_bundle(tampered)
    assert not opened


def test_a_manifest_over_64_mb_is_not_read(tampered: Path, opened: list[Path]) -> None:
    with (tampered / "manifest.json").open("r+b") as file:
        file.truncate(64 * 2**20 + 1)  # sparse: it takes no room
    with pytest.raises(UsageError, match="at most 67108864 are read"):
        load_bundle(tampered)
    assert not opened


@pytest.mark.parametrize("version", [4, 5, 99, 10**20])
def test_a_newer_schema_asks_for_an_upgrade(tampered: Path, opened: list[Path], version: int) -> None:
    # Fields that this version does not know must not hide the reason.
    write_manifest(tampered, {**manifest_of(tampered), "schema_version": version, "new_field": {"x": 1}})
    with pytest.raises(UsageError, match=rf"schema {version}, .* reads up to 3: pip install --upgrade"):
        load_bundle(tampered)
    assert not opened


@pytest.mark.parametrize("version", [0, 1, -1, None, "1", "2", True])
def test_another_schema_version_is_refused(tampered: Path, opened: list[Path], version: Any) -> None:
    write_manifest(tampered, {**manifest_of(tampered), "schema_version": version})
    with pytest.raises(UsageError, match=r"not valid at \$\.schema_version"):
        load_bundle(tampered)
    assert not opened


def test_a_name_that_ends_in_a_line_break_is_refused(tampered: Path, opened: list[Path]) -> None:
    # Python's "$" also matches before it, so the pattern that reads right lets it through.
    manifest = manifest_of(tampered)
    (tampered / "model.onnx").rename(tampered / "model.onnx\n")
    entry_of(manifest, "model.onnx")["file"] = manifest["artifacts"][0]["file"] = "model.onnx\n"
    write_manifest(tampered, manifest)
    with pytest.raises(UsageError, match=r"manifest\.json is not valid") as raised:
        load_bundle(tampered)
    assert "\n" not in str(raised.value)
    assert not opened


@pytest.mark.parametrize("place", [("tokenizer", "file"), ("golden", "file"), ("artifacts", 0, "file")])
def test_a_used_file_must_be_listed(tampered: Path, opened: list[Path], place: Path_) -> None:
    manifest = manifest_of(tampered)
    used = value_at(manifest, place)
    manifest["files"] = [entry for entry in manifest["files"] if entry["file"] != used]
    write_manifest(tampered, manifest)
    with pytest.raises(UsageError, match=f"uses {used} but does not list it under files"):
        load_bundle(tampered)
    assert not opened


def test_the_model_opened_is_the_one_that_was_checked(tampered: Path, opened: list[Path]) -> None:
    # The artifact is said to be another file, listed and whole; model.onnx itself is listed nowhere.
    manifest = manifest_of(tampered)
    (tampered / "decoy.onnx").write_bytes((tampered / "model.onnx").read_bytes())
    entry_of(manifest, "model.onnx")["file"] = manifest["artifacts"][0]["file"] = "decoy.onnx"
    write_manifest(tampered, manifest)
    (tampered / "model.onnx").write_bytes(b"anything at all")
    with pytest.raises(UsageError, match=r"decoy\.onnx"):
        load_bundle(tampered)
    assert not opened


def test_a_file_listed_twice_must_fit_both_times(tampered: Path, opened: list[Path]) -> None:
    manifest = manifest_of(tampered)
    wrong = {**entry_of(manifest, "model.onnx"), "sha256": "0" * 64}
    for files in ([wrong, *manifest["files"]], [*manifest["files"], wrong]):
        write_manifest(tampered, {**manifest, "files": files})
        with pytest.raises(UsageError, match=r"model\.onnx"):
            load_bundle(tampered)
    assert not opened


def test_a_model_of_two_sizes_is_refused(tampered: Path, opened: list[Path]) -> None:
    manifest = manifest_of(tampered)
    manifest["artifacts"][0]["size_bytes"] += 1
    write_manifest(tampered, manifest)
    with pytest.raises(UsageError, match=r"model\.onnx"):
        load_bundle(tampered)
    assert not opened


@pytest.mark.parametrize("labels", [["positive", "negative"], ["negative", "positive", "neutral"]], ids=str)
def test_labels_other_than_those_of_labels_txt_are_refused(
    tampered: Path, opened: list[Path], labels: list[str]
) -> None:
    # Swapped, every answer would be the opposite; one too many, every answer would be an exception.
    manifest = manifest_of(tampered)
    manifest["task"]["labels"] = labels
    write_manifest(tampered, manifest)
    with pytest.raises(UsageError, match="labels"):
        load_bundle(tampered)
    assert not opened


def test_inputs_other_than_those_of_the_model_are_refused(tampered: Path) -> None:
    manifest = manifest_of(tampered)
    manifest["task"]["inputs"] = ["input_ids", "attention_mask", "token_type_ids"]
    write_manifest(tampered, manifest)
    with pytest.raises(UsageError, match="input"):
        load_bundle(tampered)


def test_checking_alone_opens_nothing(bundles: dict[str, Path], opened: list[Path]) -> None:
    assert check_bundle(bundles["bert-int8"]) == manifest_of(bundles["bert-int8"])
    assert not opened
    with pytest.raises(AssertionError, match="was opened"):
        load_bundle(bundles["bert-int8"])  # the recorder itself works
    assert opened == [bundles["bert-int8"]]


# --- golden vectors tampered with, checksums and all


def retold(folder: Path, change: Callable[[Any], Any]) -> Bundle:
    """The bundle with other golden vectors."""
    path = folder / "golden.json"
    path.write_text(json.dumps(change(json.loads(path.read_text("utf-8")))), encoding="utf-8")
    return load_bundle(sealed(folder), threads=1)


def one_changed(index: int, **facts: Any) -> Callable[[Any], Any]:
    return lambda goldens: [{**entry, **facts} if at == index else entry for at, entry in enumerate(goldens)]


@pytest.mark.parametrize("ids", [[2, 3], [], [2, 5, 5, 3], "ids", None], ids=str)
def test_other_ids_are_named_by_their_text(tampered: Path, ids: Any) -> None:
    bundle = retold(tampered, one_changed(5, input_ids=ids))
    with pytest.raises(CheckFailed, match="golden text 'not bad at all' is tokenized to other ids"):
        replay_goldens(bundle)


def test_other_ids_are_found_when_the_tokenizer_changed(tampered: Path) -> None:
    tokenizer = json.loads((tampered / "tokenizer.json").read_text("utf-8"))
    words = tokenizer["model"]["vocab"]
    words["flight"], words["love"] = words["love"], words["flight"]
    (tampered / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(CheckFailed, match=r"golden text 'I love this airline.* is tokenized to other ids"):
        replay_goldens(load_bundle(sealed(tampered)))


def shifted(by: float) -> Callable[[Any], Any]:
    """One text's logits moved alike, which leaves its label."""
    return lambda goldens: one_changed(5, logits=[value + by for value in goldens[5]["logits"]])(goldens)


@pytest.mark.parametrize("by", [0.06, -0.06, 5.0])
def test_other_logits_are_named_by_their_text(tampered: Path, by: float) -> None:
    with pytest.raises(CheckFailed, match=r"golden text 'not bad at all': logits are .* \(allowed 0\.05\)"):
        replay_goldens(retold(tampered, shifted(by)))


def test_logits_that_are_no_numbers_are_named_by_their_text(tampered: Path) -> None:
    with pytest.raises(CheckFailed, match="golden text 'not bad at all'"):
        replay_goldens(retold(tampered, shifted(float("nan"))))


def test_a_difference_between_machines_is_allowed_and_told(tampered: Path) -> None:
    assert replay_goldens(retold(tampered, shifted(0.03))) == pytest.approx(0.03, abs=1e-4)


def test_another_label_is_named_by_its_text(tampered: Path) -> None:
    def other(goldens: Any) -> Any:
        return one_changed(5, label=LABELS[1 - LABELS.index(goldens[5]["label"])])(goldens)

    with pytest.raises(CheckFailed, match="not bad at all"):
        replay_goldens(retold(tampered, other))


@pytest.mark.parametrize(
    "change", [lambda _: [], lambda _: {}, lambda goldens: goldens[:-1]], ids=["[]", "{}", "31"]
)
def test_fewer_goldens_than_announced_prove_nothing(tampered: Path, change: Callable[[Any], Any]) -> None:
    with pytest.raises(StillroomError):
        replay_goldens(retold(tampered, change))


@pytest.mark.parametrize(
    "change",
    [
        lambda _: None,
        lambda goldens: ["x"] * len(goldens),
        lambda goldens: [{key: entry[key] for key in entry if key != "input_ids"} for entry in goldens],
        lambda goldens: [{key: entry[key] for key in entry if key != "text"} for entry in goldens],
        one_changed(5, text=3),
        one_changed(5, logits=None),
        one_changed(5, logits="high"),
        one_changed(5, logits=[]),
        one_changed(5, logits=[0.0, 0.0, 0.0]),
        one_changed(5, pair=3),
    ],
    ids=[
        "null", "strings", "no ids", "no text", "text 3", "null logits", "logits in words", "no logits",
        "3 logits", "pair 3",
    ],
)  # fmt: skip
def test_goldens_of_another_form_are_refused_in_one_line(
    tampered: Path, change: Callable[[Any], Any]
) -> None:
    with pytest.raises(StillroomError) as raised:
        replay_goldens(retold(tampered, change))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("target", "version", "refused"),
    [("executorch", "1.4.2", True), ("executorch", "1.4.1", False), ("executorch", "1.3.9", False),
     ("ort", "1.100.0", True), ("onnx", "1.100.0", False)],
)  # fmt: skip
def test_a_runtime_older_than_the_file(tmp_path: Path, target: str, version: str, refused: bool) -> None:
    made = {"name": bundle_module.TARGETS[target].runtime, "version": version}
    artifact = {"target": target, "file": bundle_module.TARGETS[target].file, "runtime": made}
    if not refused:
        bundle_module.check_runtime(tmp_path, artifact)
        return
    here = bundle_module.runtime_of(target)["version"]
    with pytest.raises(
        UsageError, match=rf"made for {made['name']} {version}, here is {re.escape(here)}: pip"
    ):
        bundle_module.check_runtime(tmp_path, artifact)
