"""A bundle: the one folder an app takes. Written whole; read only after everything in it was checked."""

from __future__ import annotations

import importlib.resources
import json
import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import numpy as np

import stillroom
from stillroom.artifact import Artifact, check_file, load_artifact
from stillroom.errors import CheckFailed, UsageError
from stillroom.export.golden import golden_tolerance, golden_vectors, predict_one
from stillroom.export.targets import TARGETS, Predict, open_artifact
from stillroom.export.wordpiece import vocabulary_lines, wordpiece_tokenizer
from stillroom.extras import version_of
from stillroom.files import (
    combined_sha256,
    read_json,
    require_replaceable,
    safe_join,
    sha256_file,
    staged_folder,
    write_json,
)
from stillroom.kinds import kind_of
from stillroom.student import load_student
from stillroom.task import TaskSpec, task_from_dict
from stillroom.tokens import encode_one, load_tokenizer, pad_id_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SCHEMA_VERSION = 3
DEFAULT_THREADS = min(4, os.cpu_count() or 1)  # phones have at most four big cores


@dataclass(frozen=True)
class Prediction:
    """What a bundle answers to one text.

    label: the most probable; of a multi-label task all of 0.5 and more, with commas between them; of a
    regression the score as text. labels: the same one by one, score: the same as a number, else None.
    probabilities: label -> 0..1; empty for a regression. latency_ms: tokenizing and inference.
    """

    label: str
    labels: tuple[str, ...]
    score: float | None
    probabilities: dict[str, float]
    latency_ms: float
    tokens: int


@dataclass(frozen=True)
class Bundle:
    """A checked, opened bundle: call it with a text (or a pair of texts)."""

    folder: Path
    manifest: dict[str, Any]
    artifact: Artifact
    tokenizer: Tokenizer
    predict: Predict

    @property
    def task(self) -> TaskSpec:
        return self.artifact.task

    def __call__(self, text: str, pair: str | None = None) -> Prediction:
        """Classify a text. Raises UsageError when the task wants a pair and got none, or the reverse."""
        if (pair is not None) != self.task.pair:
            wanted = "two texts" if self.task.pair else "one text"
            raise UsageError(f"this bundle classifies {wanted}")
        start = time.perf_counter()
        ids, kinds = encode_one(self.tokenizer, text, pair)
        logits = predict_one(self.predict, self.task.inputs, ids, kinds)
        kind = kind_of(self.task.kind)
        found = kind.answer(self.task.labels, logits)
        names = (found,) if isinstance(found, str) else () if isinstance(found, float) else tuple(found)
        score = found if isinstance(found, float) else None
        shares = kind.probabilities(logits).tolist() if kind.probabilities else []
        return Prediction(
            label=", ".join(names) if score is None else f"{score:.4g}",
            labels=names,
            score=score,
            probabilities=dict(zip(self.task.labels, shares, strict=kind.probabilities is not None)),
            latency_ms=(time.perf_counter() - start) * 1e3,
            tokens=len(ids),
        )


def write_bundle(name: str, artifact_folder: Path, model_folder: Path, out: Path) -> dict[str, Any]:
    """Put artifact, tokenizer, labels and golden vectors into out (replaced whole); return the manifest.

    Raises UsageError when the artifact was not made from this model folder.
    """
    require_replaceable(out, "manifest.json")
    artifact, model = load_artifact(artifact_folder), load_student(model_folder)
    if artifact.source_sha256 != model.weights_sha256:
        raise UsageError(f"{artifact_folder} was not exported from {model_folder}: export it again")
    task = artifact.task
    tokenizer = load_tokenizer(model_folder, task.max_length)
    predict = open_artifact(artifact, DEFAULT_THREADS)
    with staged_folder(out) as partial:
        copy = shutil.copytree if artifact.path.is_dir() else shutil.copyfile
        copy(artifact.path, partial / artifact.file)
        shutil.copyfile(model_folder / "tokenizer.json", partial / "tokenizer.json")
        (partial / "labels.txt").write_text(joined_lines(task.labels), encoding="utf-8")
        document = json.loads(tokenizer.to_str())
        kind = str(document["model"]["type"])
        if kind == "WordPiece":  # the plain list that phone tokenizers read
            (partial / "vocab.txt").write_text(joined_lines(vocabulary_lines(document)), encoding="utf-8")
        goldens = golden_vectors(tokenizer, predict, task)
        write_json(partial / "golden.json", goldens)
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "stillroom_version": stillroom.__version__,
            "name": name,
            "task": task.to_dict(),
            "pad_id": pad_id_of(model_folder, tokenizer),
            "tokenizer": {"file": "tokenizer.json", "kind": kind},
            "artifacts": [
                {
                    "file": artifact.file,
                    "target": artifact.target,
                    "scheme": artifact.scheme,
                    "sha256": artifact.sha256,
                    "size_bytes": artifact.size_bytes,
                    "parameters": artifact.parameters,
                    "source_sha256": artifact.source_sha256,
                    "lengths": list(artifact.lengths),
                    "runtime": runtime_of(artifact.target),
                    "proof": artifact.proof,
                    "differs": artifact.differs,
                    "tool_versions": artifact.tool_versions,
                    "tolerance": artifact.tolerance,
                    "portable": artifact.portable,
                    "portable_evidence": artifact.portable_evidence,
                }
            ],
            "golden": {
                "file": "golden.json",
                "count": len(goldens),
                "max_abs_error": golden_tolerance(task, goldens),
            },
            "files": [
                {
                    "file": path.relative_to(partial).as_posix(),
                    "sha256": sha256_file(path),
                    "size_bytes": path.stat().st_size,
                }
                for path in sorted(partial.rglob("*"))
                if path.is_file()
            ],
            "lineage": model.lineage,
        }
        validate_manifest(manifest, out)
        write_json(partial / "manifest.json", manifest)
    return manifest


def validate_manifest(manifest: Any, folder: Path) -> None:
    """Check a manifest against docs/schemas/manifest.schema.json. Raises UsageError, one line."""
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UsageError(
            f"{folder} has manifest schema {version}, this stillroom {stillroom.__version__} reads up to "
            f"{SCHEMA_VERSION}: pip install --upgrade stillroom"
        )
    schema = json.loads(
        importlib.resources.files("stillroom.schemas").joinpath("manifest.schema.json").read_text("utf-8")
    )
    error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema).iter_errors(manifest))
    if error is not None:
        raise UsageError(f"{folder}: manifest.json is not valid at {error.json_path}: {error.message[:200]}")


def check_bundle(folder: Path) -> dict[str, Any]:
    """Check manifest, paths, sizes and checksums of a bundle; open nothing else. Returns the manifest.

    Raises UsageError at the first thing that does not fit.
    """
    if not (folder / "manifest.json").is_file():
        raise UsageError(f"{folder} is not a bundle: it has no manifest.json")
    manifest: dict[str, Any] = read_json(safe_join(folder, "manifest.json"))
    validate_manifest(manifest, folder)
    listed = {entry["file"]: entry for entry in manifest["files"]}
    names = [entry["file"] for entry in manifest["files"]]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"{folder}: manifest.json lists {twice[0]} twice")
    used = [entry["file"] for entry in manifest["artifacts"]]
    for name in ("labels.txt", manifest["tokenizer"]["file"], manifest["golden"]["file"], *used):
        if not _parts_of(name, listed):
            raise UsageError(f"{folder}: manifest.json uses {name} but does not list it under files")
    for entry in manifest["artifacts"]:
        if entry["file"] != TARGETS[entry["target"]].file:  # the one file that load_predictor will open
            raise UsageError(f"{folder}: {entry['file']} is not where {entry['target']} keeps its model")
        _check_artifact(folder, entry, _parts_of(entry["file"], listed))
    for name, entry in listed.items():
        check_file(safe_join(folder, name), entry["size_bytes"], entry["sha256"])
    if (folder / "labels.txt").read_text(encoding="utf-8") != joined_lines(manifest["task"]["labels"]):
        raise UsageError(f"{folder}: labels.txt and manifest.json name different labels")
    return manifest


def _parts_of(name: str, listed: dict[str, Any]) -> list[dict[str, Any]]:
    """The listed file of that name, or the listed files of a folder of that name."""
    return [entry for path, entry in listed.items() if path == name or path.startswith(f"{name}/")]


def _check_artifact(folder: Path, entry: dict[str, Any], parts: list[dict[str, Any]]) -> None:
    """Raise UsageError when an artifact and its files contradict each other, or its folder holds others."""
    name = entry["file"]
    if [part["file"] for part in parts] == [name]:
        sha256 = parts[0]["sha256"]
    else:
        sha256 = combined_sha256({part["file"].removeprefix(f"{name}/"): part["sha256"] for part in parts})
        found = {
            path.relative_to(folder).as_posix() for path in (folder / name).rglob("*") if not path.is_dir()
        }
        if strange := found - {part["file"] for part in parts}:
            raise UsageError(f"{folder}: manifest.json does not list {min(strange)}")
    if (entry["sha256"], entry["size_bytes"]) != (sha256, sum(part["size_bytes"] for part in parts)):
        raise UsageError(f"{folder}: manifest.json contradicts itself about {name}")


def runtime_of(target: str) -> dict[str, str]:
    """The package that opens a target's files, and its version here."""
    name = TARGETS[target].runtime
    return {"name": name, "version": version_of(name)}


def check_runtime(folder: Path, artifact: dict[str, Any]) -> None:
    """Raise UsageError when a file that only newer runtimes read was made with a newer one than is here."""
    made, here = artifact["runtime"], runtime_of(artifact["target"])
    if TARGETS[artifact["target"]].runtime_may_be_older or not here["version"]:
        return
    if _numbers(here["version"]) < _numbers(made["version"]):
        raise UsageError(
            f"{folder}: {artifact['file']} was made for {made['name']} {made['version']}, here is "
            f"{here['version']}: pip install --upgrade {made['name']}"
        )


def _numbers(version: str) -> list[int]:
    """ "1.4.1+cpu" -> [1, 4, 1]"""
    return [int(number) for number in re.findall(r"\d+", version.partition("+")[0])]


def joined_lines(lines: Sequence[str]) -> str:
    """The content of labels.txt or vocab.txt."""
    return "".join(f"{line}\n" for line in lines)


def bundle_tokenizer(folder: Path, manifest: dict[str, Any]) -> Tokenizer:
    """The tokenizer of a checked bundle: tokenizer.json, or in the app's form vocab.txt and its settings.

    Raises UsageError when it is none.
    """
    max_length = manifest["task"]["max_length"]
    if manifest["tokenizer"]["file"] == "tokenizer.json":
        return load_tokenizer(folder, max_length)
    text = (folder / manifest["tokenizer"]["file"]).read_text(encoding="utf-8")
    return wordpiece_tokenizer(manifest["tokenizer"]["wordpiece"], text.split("\n")[:-1], max_length)


def load_bundle(folder: str | Path, threads: int = DEFAULT_THREADS) -> Bundle:
    """Open a bundle after checking its schema, paths, sizes and checksums.

    Raises UsageError when anything does not fit, or when the runtime is not installed.
    """
    folder = Path(folder)
    manifest = check_bundle(folder)
    artifact = artifact_of(folder, manifest)
    task = artifact.task
    check_runtime(folder, manifest["artifacts"][0])
    bundle = Bundle(
        folder=folder,
        manifest=manifest,
        artifact=artifact,
        tokenizer=bundle_tokenizer(folder, manifest),
        predict=open_artifact(artifact, threads),
    )
    try:
        bundle("", "" if task.pair else None)  # the first inference also sets the runtime's memory up
    except (ValueError, IndexError) as error:
        raise UsageError(
            f"{folder}: the model's inputs or outputs are not those of manifest.json: {error}"
        ) from None
    return bundle


def artifact_of(folder: Path, manifest: dict[str, Any]) -> Artifact:
    """The model file of a checked bundle."""
    entry = {name: value for name, value in manifest["artifacts"][0].items() if name != "runtime"}
    read = {"task": task_from_dict(manifest["task"]), "lengths": tuple(entry["lengths"])}
    return Artifact(folder=folder, **{**entry, **read})


def holds_artifact(folder: Path) -> bool:
    """Whether a folder says that it is an artifact or a bundle, which artifact_at then checks."""
    return any((folder / name).is_file() for name in ("artifact.json", "manifest.json"))


def artifact_at(folder: Path) -> Artifact:
    """The checked model file of an artifact folder or a bundle.

    Raises UsageError when anything in it does not fit, or it is neither.
    """
    if (folder / "artifact.json").is_file():
        return load_artifact(folder)
    return artifact_of(folder, check_bundle(folder))


def _golden_of(entry: Any, task: TaskSpec) -> dict[str, Any]:
    """Check the form of one golden vector read from a file. Raises CheckFailed."""
    logits = entry.get("logits") if isinstance(entry, dict) else None
    fits = (
        isinstance(logits, list)
        and len(logits) == len(task.labels)
        and all(isinstance(value, int | float) for value in logits)
        and isinstance(entry.get("text"), str)
        and isinstance(entry.get("pair"), str) == task.pair == ("pair" in entry)
        and "input_ids" in entry
    )
    if not fits:
        raise CheckFailed(f"golden vector {str(entry)[:80]!r} is not a whole one of this task")
    return dict(entry)


def read_goldens(bundle: Bundle) -> list[dict[str, Any]]:
    """A bundle's golden vectors. Raises CheckFailed when they are not as many as announced, or not whole."""
    goldens = read_json(bundle.folder / bundle.manifest["golden"]["file"])
    if not isinstance(goldens, list) or len(goldens) != bundle.manifest["golden"]["count"]:
        raise CheckFailed(f"{bundle.folder}: golden.json does not hold as many vectors as announced")
    return [_golden_of(golden, bundle.task) for golden in goldens]


def replay_goldens(bundle: Bundle) -> float:
    """Replay every golden vector; return the largest logit error. Raises CheckFailed naming the text."""
    allowed, largest = float(bundle.manifest["golden"]["max_abs_error"]), 0.0
    answer = kind_of(bundle.task.kind).answer
    for entry in read_goldens(bundle):
        ids, kinds = encode_one(bundle.tokenizer, entry["text"], entry.get("pair"))
        if ids != entry["input_ids"]:
            raise CheckFailed(f"golden text {entry['text'][:80]!r} is tokenized to other ids than recorded")
        logits = predict_one(bundle.predict, bundle.task.inputs, ids, kinds)
        error = float(np.abs(logits - np.array(entry["logits"])).max())
        if not error <= allowed:
            raise CheckFailed(
                f"golden text {entry['text'][:80]!r}: logits are {error:.4g} from those recorded "
                f"(allowed {allowed:g})"
            )
        if entry.get("label") != answer(bundle.task.labels, np.array(entry["logits"])):
            raise CheckFailed(f"golden text {entry['text'][:80]!r}: its label is not that of its logits")
        largest = max(largest, error)
    return largest
