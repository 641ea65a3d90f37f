"""The Android project as it is read here: its Gradle settings, and the manifest that aapt2 gets."""

from __future__ import annotations

import re
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from stillroom.errors import CheckFailed, UsageError
from stillroom.export.android.app_project import (
    ANDROID,
    AppProject,
    check_flavour,
    manifest_for_aapt2,
    read_project,
)
from stillroom.export.android.toolchain import TABLE

ROOT = Path(__file__).parents[3]
DEMO = ROOT / "android_demo"
MANIFEST = """<manifest xmlns:android="http://schemas.android.com/apk/res/android"
    xmlns:tools="http://schemas.android.com/tools">
  <uses-permission android:name="android.permission.INTERNET" tools:node="remove"/>
  <uses-permission android:name="android.permission.CAMERA" tools:ignore="x"/>
  <application android:dataExtractionRules="@xml/r" android:allowBackup="false">
    <provider android:name="a.B" android:authorities="${applicationId}.b" tools:node="remove"/>
    <provider android:name="a.C" android:authorities="${applicationId}.c"/>
  </application>
</manifest>"""


@pytest.fixture
def demo() -> AppProject:
    return read_project(DEMO)


def catalog() -> dict[str, str]:
    return dict(tomllib.loads((DEMO / "gradle" / "libs.versions.toml").read_text("utf-8"))["versions"])


def test_the_settings_are_those_of_the_contract(demo: AppProject) -> None:
    assert (demo.namespace, demo.application_id) == ("dev.stillroom.demo", "dev.stillroom.demo")
    assert (demo.min_sdk, demo.target_sdk) == (26, 35)
    assert demo.no_compress == ("onnx", "ort", "pte")
    assert all(folder.is_dir() for name in ("onnxruntime", "executorch") for folder in demo.kotlin(name))
    assert demo.rules.is_file()


def test_gradle_takes_the_runtimes_that_the_exporter_proves_with() -> None:
    pins = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    assert f"onnxruntime=={catalog()['onnxruntime']}" in pins
    assert f"executorch=={catalog()['executorch']}" in pins


def test_kotlin_is_of_one_version_in_both_builds() -> None:
    (compiler,) = (one for one in tomllib.loads(TABLE.read_text("utf-8"))["npm"] if one["part"] == "kotlinc")
    assert f"kotlin-compiler-{catalog()['kotlin']}.tgz" in compiler["address"]


def test_every_version_of_the_gradle_build_is_pinned() -> None:
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in catalog().values())
    scripts = [*DEMO.glob("*.gradle.kts"), *DEMO.glob("app/*.gradle.kts")]
    assert len(scripts) == 3
    for script in scripts:  # only the catalog has versions
        assert not re.search(r'"[\w.-]+:[\w.-]+:[^"]*"', script.read_text("utf-8")), script
    wrapper = (DEMO / "gradle/wrapper/gradle-wrapper.properties").read_text("utf-8")
    assert re.search(r"^distributionUrl=https\\://services\.gradle\.org/\S+-bin\.zip$", wrapper, re.MULTILINE)
    assert re.search(r"^distributionSha256Sum=[0-9a-f]{64}$", wrapper, re.MULTILINE)


def test_what_the_merge_would_remove_is_not_in_aapts_manifest(demo: AppProject) -> None:
    made, left_out = manifest_for_aapt2(MANIFEST, demo)
    assert left_out == ["dataExtractionRules (API 31)"]
    root = ElementTree.fromstring(made)  # noqa: S314, made here
    assert root.get("package") == "dev.stillroom.demo"
    names = [child.get(f"{{{ANDROID}}}name") for child in root.iter() if child.tag != "manifest"]
    assert names == ["android.permission.CAMERA", None, "a.C"]
    application = root.find("application")
    assert application is not None
    assert application.attrib == {
        f"{{{ANDROID}}}allowBackup": "false",
        f"{{{ANDROID}}}extractNativeLibs": "false",
    }
    assert application[0].get(f"{{{ANDROID}}}authorities") == "dev.stillroom.demo.c"
    assert "tools" not in made and "${" not in made


def test_the_demos_own_manifest_asks_for_nothing(demo: AppProject) -> None:
    source = (DEMO / "app/src/main/AndroidManifest.xml").read_text("utf-8")
    made, _ = manifest_for_aapt2(source, demo)
    assert "permission" not in made and "TelemetryInitializer" not in made
    assert 'android:name="dev.stillroom.ui.MainActivity"' in made
    # In Gradle's merge they go by this, whatever a library's own manifest says.
    removed = re.findall(r'android:name="([\w.]+)"[^>]*tools:node="remove"', source)
    assert set(removed) >= {"android.permission.INTERNET", "ai.onnxruntime.TelemetryInitializer"}
    assert "package=" not in source  # the plugin refuses it


@pytest.mark.parametrize("source", ["<manifest", "<resources/>", "<manifest/>"])
def test_what_is_no_manifest_is_one_line(demo: AppProject, source: str) -> None:
    with pytest.raises(CheckFailed, match=r"^AndroidManifest\.xml"):
        manifest_for_aapt2(source, demo)


def test_what_is_no_project_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is no Android project: .*--project android_demo"):
        read_project(tmp_path)
    (tmp_path / "app").mkdir()
    script = (DEMO / "app/build.gradle.kts").read_text("utf-8")
    (tmp_path / "app/build.gradle.kts").write_text(script.replace("minSdk = 26", "minSdk = oldest"), "utf-8")
    with pytest.raises(UsageError, match=r"does not set minSdk in a line of its own"):
        read_project(tmp_path)


def test_flavours() -> None:
    check_flavour("onnxruntime")
    with pytest.raises(CheckFailed, match=r"libfbjni\.so.*gradle assembleExecutorchRelease"):
        check_flavour("executorch")
    with pytest.raises(UsageError, match=r"no flavour 'onnx'.*onnxruntime, executorch"):
        check_flavour("onnx")
