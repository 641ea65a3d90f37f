"""An APK of the Android project without Gradle: resources, classes, R8, one aligned ZIP file, signatures.

For looking at and testing the app where there is no Android SDK; the release build is Gradle's.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stillroom.errors import UsageError
from stillroom.export.android.apk_file import (
    MODEL_BYTES,
    PAGE_BYTES,
    WORD_BYTES,
    Entry,
    sizes_of,
    write_apk,
)
from stillroom.export.android.app_project import (
    FLAVOURS,
    AppProject,
    check_flavour,
    manifest_for_aapt2,
    read_project,
)
from stillroom.export.android.bundle import assets_of, read_assets
from stillroom.export.android.compile import (
    JAVA_OPTIONS,
    compile_java,
    compile_kotlin,
    require_jdk,
    run_tool,
)
from stillroom.export.android.shrink import shrink
from stillroom.export.android.toolchain import Toolchain
from stillroom.files import write_atomic
from stillroom.progress import progress_bar

ABI = "arm64-v8a"
KEY = ("--ks-pass", "pass:android", "--key-pass", "pass:android")
KEY_ALIAS = "androiddebugkey"


@dataclass(frozen=True)
class Apk:
    """A built APK. sizes: bytes by part; left_out: attributes of the manifest that are not in it."""

    path: Path
    project: AppProject
    flavour: str
    target: str
    artifact_sha256: str
    sizes: dict[str, int]
    left_out: tuple[str, ...]


def build_apk(project_folder: Path, out: Path, tools: Toolchain, flavour: str = "onnxruntime") -> Apk:
    """Build a project's APK for arm64 phones, with the bundle in its assets, signed with a debug key.

    out is whole or as it was. Raises UsageError when the bundle, a tool or the JDK is missing or the flavour
    cannot open the bundle's model, CheckFailed when something does not compile.
    """
    check_flavour(flavour)
    project = read_project(project_folder)
    bundle = read_assets(project_folder)
    (artifact,) = bundle["artifacts"]
    if artifact["target"] not in FLAVOURS[flavour]:
        fitting = [name for name, targets in FLAVOURS.items() if artifact["target"] in targets]
        raise UsageError(
            f"flavour {flavour} opens {' or '.join(FLAVOURS[flavour])}, the bundle's model is for "
            f"{artifact['target']}: use flavour {' or '.join(fitting)}, or another bundle"
        )
    require_jdk()
    with tempfile.TemporaryDirectory() as folder, progress_bar(6, "APK", "step") as bar:
        work = Path(folder)
        left_out = _link_resources(project, tools, work)
        bar.update()
        compile_java(tools, list((work / "java").rglob("*.java")), work / "r_classes")
        bar.update()
        classpath = [tools.android_jar, tools.onnxruntime_jar, work / "r_classes"]
        compile_kotlin(tools, project.kotlin(flavour), classpath, work / "classes")
        bar.update()
        classes = [work / "classes", work / "r_classes", tools.onnxruntime_jar]
        rules = [work / "rules.pro", project.rules]
        shrink(tools, classes, rules, work / "dex", min_sdk=project.min_sdk)
        bar.update()
        write_apk(work / "unsigned.apk", _entries(project, tools, work))
        bar.update()
        _sign(work / "unsigned.apk", work / "signed.apk", project, tools)
        names = (f"assets/bundle/{name}" for name in (artifact["file"], bundle["tokenizer"]["file"]))
        sizes = sizes_of(work / "signed.apk", *names)
        write_atomic(out, (work / "signed.apk").read_bytes())
        bar.update()
    return Apk(out, project, flavour, artifact["target"], artifact["sha256"], sizes, tuple(left_out))


def _link_resources(project: AppProject, tools: Toolchain, work: Path) -> list[str]:
    """resources.apk, java/ with R, and rules.pro: what the manifest and the layouts need to be kept."""
    source = (project.main / "AndroidManifest.xml").read_text("utf-8")
    manifest, left_out = manifest_for_aapt2(source, project)
    (work / "AndroidManifest.xml").write_text(manifest, "utf-8")
    libraries = {"LD_LIBRARY_PATH": str(tools.library_path)}
    compiled = work / "resources.zip"
    run_tool([tools.aapt2, "compile", "--dir", project.main / "res", "-o", compiled], libraries)
    made: dict[str, str | Path] = {
        "-I": tools.framework_res,
        "--manifest": work / "AndroidManifest.xml",
        "--java": work / "java",
        "--custom-package": project.namespace,
        "--proguard": work / "rules.pro",
        "--min-sdk-version": str(project.min_sdk),
        "--target-sdk-version": str(project.target_sdk),
        "--version-code": str(project.version_code),
        "--version-name": project.version_name,
        "-o": work / "resources.apk",
    }
    words = [word for option in made.items() for word in option]
    run_tool([tools.aapt2, "link", *words, compiled], libraries)
    return left_out


def _entries(project: AppProject, tools: Toolchain, work: Path) -> Iterator[Entry]:
    """What goes into the APK, in its order."""
    with zipfile.ZipFile(work / "resources.apk") as linked:
        for info in linked.infolist():
            stored = info.compress_type == zipfile.ZIP_STORED
            yield Entry(info.filename, linked.read(info), WORD_BYTES if stored else 0)
    for path in sorted((work / "dex").glob("*.dex")):
        yield Entry(path.name, path.read_bytes())
    for library in sorted((tools.onnxruntime_jni / ABI).glob("*.so")):
        yield Entry(f"lib/{ABI}/{library.name}", library.read_bytes(), PAGE_BYTES)
    for path, name in _files(project.main / "resources"):
        yield Entry(name, path.read_bytes())
    for path, name in _files(assets_of(project.folder).parent):
        stored = path.suffix.removeprefix(".") in project.no_compress
        yield Entry(f"assets/{name}", path.read_bytes(), MODEL_BYTES if stored else 0)


def _files(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            yield path, path.relative_to(folder).as_posix()


def _sign(unsigned: Path, signed: Path, project: AppProject, tools: Toolchain) -> None:
    """Schemes v2 and v3, which Android 8 and newer check; the key is made once and kept beside the tools."""
    key = tools.folder.parent / "debug.keystore"
    if not key.is_file():
        made = signed.parent / key.name
        options = ["-storepass", "android", "-keypass", "android", "-alias", KEY_ALIAS, "-dname", "CN=Debug"]
        options += ["-keyalg", "RSA", "-keysize", "2048", "-validity", "10000", "-storetype", "PKCS12"]
        run_tool(["keytool", "-genkeypair", "-keystore", made, *options])
        write_atomic(key, made.read_bytes())
    command: list[str | Path] = [
        "java",
        *JAVA_OPTIONS,
        "-jar",
        tools.apksigner_jar,
        "sign",
        "--ks",
        key,
        *KEY,
    ]
    command += ["--ks-key-alias", KEY_ALIAS, "--min-sdk-version", str(project.min_sdk)]
    command += ["--v1-signing-enabled", "false", "--v4-signing-enabled", "false"]
    run_tool([*command, "--in", unsigned, "--out", signed], name="apksigner")
