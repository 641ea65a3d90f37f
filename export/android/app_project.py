"""What the Android project's own files say: its Gradle settings, its sources, and a manifest for aapt2.

Gradle is not run for it. Each is read as it is written in android_demo, and an error names what is wanted.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from stillroom.errors import CheckFailed, UsageError, did_you_mean

ANDROID, TOOLS = "http://schemas.android.com/apk/res/android", "http://schemas.android.com/tools"
# flavour -> targets of the bundles that its runtime opens
FLAVOURS = {"onnxruntime": ("onnx", "ort"), "executorch": ("executorch",)}
# Attributes that came after API 29, whose resources the APK is linked with here; Gradle's build has them.
NEWER_ATTRIBUTES = {"dataExtractionRules": 31}


@dataclass(frozen=True)
class AppProject:
    """A project folder, and what its app/build.gradle.kts sets."""

    folder: Path
    namespace: str
    application_id: str
    min_sdk: int
    target_sdk: int
    version_code: int
    version_name: str
    no_compress: tuple[str, ...]

    @property
    def main(self) -> Path:
        """Where the sources of all flavours lie."""
        return self.folder / "app" / "src" / "main"

    @property
    def rules(self) -> Path:
        """What R8 keeps."""
        return self.folder / "app" / "proguard-rules.pro"

    def kotlin(self, flavour: str) -> list[Path]:
        """Folders of Kotlin sources of a flavour."""
        return [self.main / "kotlin", self.folder / "app" / "src" / flavour / "kotlin"]


def read_project(folder: Path) -> AppProject:
    """Read a project. Raises UsageError when it is none, or sets something in another way than is read."""
    script = folder / "app" / "build.gradle.kts"
    if not script.is_file():
        raise UsageError(
            f"{folder} is no Android project: it has no app/build.gradle.kts; --project android_demo"
        )
    text = script.read_text("utf-8")

    def setting(name: str, value: str) -> str:
        found = re.search(rf"^\s*{name}\s*=\s*{value}\s*$", text, re.MULTILINE)
        if found is None:
            raise UsageError(f"{script} does not set {name} in a line of its own, as: {name} = ...")
        return found[1]

    quoted, number = r'"([^"$]+)"', r"(\d+)"
    listed = re.search(r"noCompress \+= listOf\(([^)]*)\)", text)
    return AppProject(
        folder=folder,
        namespace=setting("namespace", quoted),
        application_id=setting("applicationId", quoted),
        min_sdk=int(setting("minSdk", number)),
        target_sdk=int(setting("targetSdk", number)),
        version_code=int(setting("versionCode", number)),
        version_name=setting("versionName", quoted),
        no_compress=tuple(re.findall(r'"([^"]+)"', listed[1])) if listed else (),
    )


def check_flavour(flavour: str) -> None:
    """Raise UsageError unless an APK of this flavour can be built here."""
    if flavour not in FLAVOURS:
        near = did_you_mean(flavour, FLAVOURS)
        raise UsageError(f"there is no flavour {flavour!r}{near}: {', '.join(FLAVOURS)}")
    if flavour == "executorch":
        raise CheckFailed(
            "the executorch flavour is not built here: libexecutorch.so needs libfbjni.so, which the tools "
            "lack; Gradle takes both from Maven Central: gradle assembleExecutorchRelease"
        )


def manifest_for_aapt2(source: str, project: AppProject) -> tuple[str, list[str]]:
    """The app's AndroidManifest.xml as aapt2 takes it, and the attributes that it cannot hold here.

    aapt2 wants the package in the manifest and merges nothing. So, as Gradle's plugin does it, what
    tools:node removes is left out, placeholders are filled in, and libraries are said to stay in the APK.
    Raises CheckFailed when the file is no manifest.
    """
    ElementTree.register_namespace("android", ANDROID)
    try:
        root = ElementTree.fromstring(source.replace("${applicationId}", project.application_id))  # noqa: S314, the app's own source
    except ElementTree.ParseError as error:
        raise CheckFailed(f"AndroidManifest.xml: {error}") from None
    application = root.find("application")
    if root.tag != "manifest" or application is None:
        raise CheckFailed("AndroidManifest.xml has no <application> in a <manifest>")
    left_out: list[str] = []
    for parent in root.iter():
        for child in list(parent):
            if child.get(f"{{{TOOLS}}}node") == "remove":
                parent.remove(child)
        for name in list(parent.attrib):
            newer = NEWER_ATTRIBUTES.get(name.removeprefix(f"{{{ANDROID}}}"))
            if name.startswith(f"{{{TOOLS}}}") or newer:
                del parent.attrib[name]
            if newer:
                left_out.append(f"{name.removeprefix(f'{{{ANDROID}}}')} (API {newer})")
    root.set("package", project.application_id)
    application.set(f"{{{ANDROID}}}extractNativeLibs", "false")
    return ElementTree.tostring(root, encoding="unicode"), left_out
