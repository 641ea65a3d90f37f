"""A bundle in the form the Android app takes: vocab.txt with its settings in the place of tokenizer.json."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from stillroom.errors import UsageError
from stillroom.export.bundle import (
    check_bundle,
    joined_lines,
    load_bundle,
    read_goldens,
    replay_goldens,
    validate_manifest,
)
from stillroom.export.wordpiece import vocabulary_lines, wordpiece_settings
from stillroom.files import require_replaceable, sha256_file, staged_folder, write_json
from stillroom.tokens import encode_one

ASSETS = Path("app") / "src" / "main" / "assets" / "bundle"
TARGETS = ("onnx", "ort", "executorch")  # those with a runtime in the app


def write_android_bundle(bundle: Path, out: Path) -> dict[str, Any]:
    """Write a bundle's form for the app into out (replaced whole); returns its manifest.

    out: a folder, or a file that ends in .zip, which the app opens from storage. It is read back and its
    golden vectors are replayed here, tokenized by what the app is told. Raises UsageError, with the reason,
    when the app cannot run the model or read its tokenizer; out is as it was then.
    """
    manifest = check_bundle(bundle)
    (artifact,) = manifest["artifacts"]
    if artifact["target"] not in TARGETS:
        raise UsageError(
            f"the Android app runs files of {', '.join(TARGETS)}, not of {artifact['target']}: "
            "choose another by --artifact"
        )
    document = json.loads((bundle / manifest["tokenizer"]["file"]).read_text("utf-8"))
    settings = wordpiece_settings(document)
    manifest["tokenizer"] = {"file": "vocab.txt", "kind": "WordPiece", "wordpiece": settings}

    def fill(folder: Path) -> None:
        for name in ("golden.json", "labels.txt", artifact["file"]):
            shutil.copyfile(bundle / name, folder / name)
        (folder / "vocab.txt").write_text(joined_lines(vocabulary_lines(document)), encoding="utf-8")
        manifest["files"] = [
            {"file": path.name, "sha256": sha256_file(path), "size_bytes": path.stat().st_size}
            for path in sorted(folder.iterdir())
        ]
        validate_manifest(manifest, out)
        write_json(folder / "manifest.json", manifest)
        _prove(folder)

    if out.suffix == ".zip":
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".stillroom-") as work:
            made = Path(work) / "bundle"
            made.mkdir()
            fill(made)
            _zip(made, out)
    else:
        require_replaceable(out, "manifest.json")
        with staged_folder(out) as partial:
            fill(partial)
    return manifest


def _prove(folder: Path) -> None:
    """Raise CheckFailed or UsageError unless the app's form gives the golden vectors that the bundle has."""
    bundle = load_bundle(folder)
    for golden in read_goldens(bundle):
        found, _ = encode_one(bundle.tokenizer, golden["text"], golden.get("pair"))
        if found != golden["input_ids"]:
            raise UsageError(
                "the app cannot read this model's tokenizer: its settings give other ids for "
                f"{golden['text'][:40]!r}"
            )
    replay_goldens(bundle)


def _zip(folder: Path, out: Path) -> None:
    """folder's files as out, the model stored as it is: it would hardly get smaller."""
    partial = folder.parent / "bundle.zip"
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            stored = zipfile.ZIP_STORED if path.name.startswith("model.") else zipfile.ZIP_DEFLATED
            archive.write(path, path.name, stored)
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    partial.replace(out)


def assets_of(project: Path) -> Path:
    """Where the app looks for its bundle. Raises UsageError when project is not the app's folder."""
    if not (project / "app" / "src" / "main" / "AndroidManifest.xml").is_file():
        raise UsageError(f"{project} is not the Android project: it has no app/src/main/AndroidManifest.xml")
    return project / ASSETS


def read_assets(project: Path) -> dict[str, Any]:
    """The manifest of the bundle in the app's assets, checked. Raises UsageError when there is none."""
    folder = assets_of(project)
    command = f"stillroom bundle RUN --for android --into {project}"
    if not (folder / "manifest.json").is_file():
        raise UsageError(f"{folder} has no bundle: {command}")
    manifest = check_bundle(folder)
    if manifest["tokenizer"]["file"] != "vocab.txt":
        raise UsageError(f"{folder} is not in the app's form: {command}")
    return manifest
