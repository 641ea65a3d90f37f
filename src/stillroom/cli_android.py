"""android on the command line: an APK of the sample app, and its size by part."""

from __future__ import annotations

import argparse
import time
import tomllib
from typing import TYPE_CHECKING, Any

from stillroom.files import write_json

if TYPE_CHECKING:
    from stillroom.export.android.apk import Apk

Answer = tuple[str, dict[str, Any]]


def android_verb(options: argparse.Namespace) -> Answer:
    """Build the APK. Its one work so far; the options name it, so that others can come beside it."""
    from stillroom.export.android.apk import build_apk
    from stillroom.export.android.app_project import check_flavour
    from stillroom.export.android.bundle import read_assets
    from stillroom.export.android.toolchain import fetch_toolchain, load_toolchain

    start = time.perf_counter()
    check_flavour(options.flavour)
    read_assets(options.project)  # before anything is fetched
    tools = fetch_toolchain(options.tools) if options.fetch else load_toolchain(options.tools)
    apk = build_apk(options.project, options.out, tools, options.flavour)
    document = _document(apk, time.perf_counter() - start)
    write_json(options.out.with_suffix(".json"), document)  # a run's report reads it
    return _table(document), document


def _document(apk: Apk, seconds: float) -> dict[str, Any]:
    from stillroom.export.android.apk import ABI
    from stillroom.export.android.apk_file import MODEL, RUNTIME
    from stillroom.export.android.toolchain import version_of_part

    catalog = tomllib.loads((apk.project.folder / "gradle" / "libs.versions.toml").read_text("utf-8"))
    total_bytes = sum(apk.sizes.values())
    return {
        "apk": str(apk.path),
        "package": apk.project.application_id,
        "flavour": apk.flavour,
        "target": apk.target,
        "artifact_sha256": apk.artifact_sha256,
        "abi": ABI,
        "min_sdk": apk.project.min_sdk,
        "target_sdk": apk.project.target_sdk,
        "size_bytes": total_bytes,
        "parts_bytes": apk.sizes,
        "without_runtime_and_model_bytes": total_bytes - apk.sizes[RUNTIME] - apk.sizes[MODEL],
        "runtime_version": version_of_part("onnxruntime_python"),
        "gradle_runtime_version": catalog["versions"][apk.flavour],
        "left_out_of_manifest": list(apk.left_out),
        "build_s": round(seconds, 1),
        "proof": "built and signed, not installed or run on a phone",
    }


def _table(document: dict[str, Any]) -> str:
    def line(name: str, size_bytes: int) -> str:
        return f"  {name:<26}{size_bytes / 1e6:9.3f} MB"

    facts = f"minSdk {document['min_sdk']}, targetSdk {document['target_sdk']}, debug key"
    lines = [f"{document['apk']}   {document['package']}, {document['abi']}, {facts}"]
    lines += [line(name, size_bytes) for name, size_bytes in document["parts_bytes"].items()]
    lines.append(line("total", document["size_bytes"]))
    lines.append(line("without runtime and model", document["without_runtime_and_model_bytes"]))
    lines.append(
        f"onnxruntime {document['runtime_version']} of a third party's package; Gradle takes "
        f"{document['gradle_runtime_version']} from Maven Central"
    )
    if document["left_out_of_manifest"]:
        lines.append(f"not in this manifest, only in Gradle's: {', '.join(document['left_out_of_manifest'])}")
    lines.append(
        f"built in {document['build_s']:.0f} s; the release build is Gradle's, and this APK was not "
        "installed or run on a phone"
    )
    return "\n".join(lines)
