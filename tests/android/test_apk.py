"""The APK that is built here, read by Android's own tools and byte by byte. It is not installed or run."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillroom.export.android.apk_file import content_offset
from stillroom.export.android.toolchain import Toolchain

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "android_demo"
PAGE_BYTES = 16384
MAX_DEX_BYTES = 300_000
MAX_OWN_BYTES = 1_500_000  # of the APK without runtime and model
PT_LOAD = 1


@pytest.fixture(scope="session")
def built(
    build_words: Callable[..., list[str]], project: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The APK and what the command said of it."""
    out = tmp_path_factory.mktemp("out") / "app.apk"
    words = [sys.executable, "-m", "stillroom", *build_words(project, out), "--json"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


@pytest.fixture(scope="session")
def apk(built: tuple[Path, dict[str, Any]]) -> Path:
    return built[0]


def badging(tools: Toolchain, apk: Path) -> dict[str, list[dict[str, str]]]:
    """What Android's own tool reads of an APK: line -> its values, by name ("" for one without)."""
    said = subprocess.run(
        [tools.aapt, "dump", "badging", apk],
        capture_output=True,
        text=True,
        check=True,
        env={"LD_LIBRARY_PATH": str(tools.library_path)},
    ).stdout
    found: dict[str, list[dict[str, str]]] = {}
    for line in said.splitlines():
        key, _, rest = line.strip().partition(":")
        values = {name.rstrip("="): value for name, value in re.findall(r"(\w+=)?'([^']*)'", rest)}
        found.setdefault(key, []).append(values)
    return found


def test_it_is_signed_for_android_8_and_newer(tools: Toolchain, apk: Path) -> None:
    command = [
        "java",
        "-jar",
        str(tools.apksigner_jar),
        "verify",
        "--verbose",
        "--min-sdk-version",
        "26",
        str(apk),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Verified using v2 scheme (APK Signature Scheme v2): true" in done.stdout
    assert "Verified using v3 scheme (APK Signature Scheme v3): true" in done.stdout
    assert "WARNING" not in done.stdout + done.stderr
    content = bytearray(apk.read_bytes())
    content[len(content) // 2] ^= 1
    changed = apk.with_name("changed.apk")
    changed.write_bytes(content)
    assert subprocess.run([*command[:-1], str(changed)], capture_output=True).returncode != 0


def test_android_reads_what_gradle_says(tools: Toolchain, apk: Path) -> None:
    facts = badging(tools, apk)
    assert facts["package"][0]["name"] == "dev.stillroom.demo"
    assert facts["sdkVersion"] == [{"": "26"}] and facts["targetSdkVersion"] == [{"": "35"}]
    assert [one["name"] for one in facts["launchable-activity"]] == ["dev.stillroom.ui.MainActivity"]
    assert facts["native-code"] == [{"": "arm64-v8a"}]
    assert facts["application-label"] and facts["application-label-fa"]
    assert "application-debuggable" not in facts


def test_it_asks_for_nothing_and_keeps_nothing_elsewhere(tools: Toolchain, apk: Path) -> None:
    assert not [key for key in badging(tools, apk) if "permission" in key]
    tree = subprocess.run(
        [tools.aapt, "dump", "xmltree", apk, "AndroidManifest.xml"],
        capture_output=True,
        text=True,
        check=True,
        env={"LD_LIBRARY_PATH": str(tools.library_path)},
    ).stdout
    assert not re.search(r"E: (provider|receiver|service|uses-permission)", tree)
    assert re.search(r"android:allowBackup\(0x\w+\)=\(type 0x12\)0x0", tree)
    assert re.search(r"android:supportsRtl\(0x\w+\)=\(type 0x12\)0xffffffff", tree)
    assert re.search(r"android:extractNativeLibs\(0x\w+\)=\(type 0x12\)0x0", tree)


def test_the_model_is_mapped_where_it_lies(apk: Path, bundle: Path) -> None:
    with zipfile.ZipFile(apk) as archive:
        model = archive.getinfo("assets/bundle/model.onnx")
        assert model.compress_type == zipfile.ZIP_STORED
        assert content_offset(archive, model) % 4096 == 0
        start = content_offset(archive, model)
        assert apk.read_bytes()[start : start + model.file_size] == (bundle / "model.onnx").read_bytes()
        names = {path.name for path in bundle.iterdir()}
        assert {Path(name).name for name in archive.namelist() if name.startswith("assets/")} == names
        assert archive.testzip() is None
        assert content_offset(archive, archive.getinfo("resources.arsc")) % 4 == 0
        assert archive.getinfo("resources.arsc").compress_type == zipfile.ZIP_STORED


def test_libraries_fit_pages_of_16_kb(apk: Path) -> None:
    with zipfile.ZipFile(apk) as archive:
        libraries = [info for info in archive.infolist() if info.filename.startswith("lib/")]
        assert [info.filename for info in libraries] == [
            f"lib/arm64-v8a/{name}" for name in ("libonnxruntime.so", "libonnxruntime4j_jni.so")
        ]
        for info in libraries:
            assert info.compress_type == zipfile.ZIP_STORED
            assert content_offset(archive, info) % PAGE_BYTES == 0
            alignments = load_alignments(archive.read(info))
            assert alignments and all(one % PAGE_BYTES == 0 for one in alignments), info.filename


def load_alignments(library: bytes) -> list[int]:
    """Alignment of each LOAD segment of an ELF file of 64 bits."""
    assert library[:6] == b"\x7fELF\x02\x01"
    (table,) = struct.unpack_from("<Q", library, 32)
    entry_bytes, count = struct.unpack_from("<HH", library, 54)
    found = []
    for at in range(table, table + entry_bytes * count, entry_bytes):
        if struct.unpack_from("<I", library, at)[0] == PT_LOAD:
            found.append(struct.unpack_from("<Q", library, at + 48)[0])
    return found


def test_the_apps_own_part_is_small(built: tuple[Path, dict[str, Any]]) -> None:
    path, said = built
    with zipfile.ZipFile(path) as archive:
        dex = [info for info in archive.infolist() if info.filename.endswith(".dex")]
        assert [info.filename for info in dex] == ["classes.dex"]
        assert dex[0].file_size < MAX_DEX_BYTES
        content = archive.read("classes.dex")
        assert b"Ldev/stillroom/ui/MainActivity;" in content  # the manifest names it
        assert b"Lai/onnxruntime/OrtSession;" in content  # its library names it
        tables = [path.relative_to(DEMO / "app/src/main/resources").as_posix()
                  for path in (DEMO / "app/src/main/resources").rglob("*.txt")]  # fmt: skip
        assert tables and set(tables) <= set(archive.namelist())
    assert said["without_runtime_and_model_bytes"] < MAX_OWN_BYTES


def test_the_table_of_sizes_is_that_of_the_file(built: tuple[Path, dict[str, Any]]) -> None:
    path, said = built
    sizes, parts = {}, said["parts_bytes"]
    with zipfile.ZipFile(path) as archive:
        sizes = {info.filename: info.compress_size for info in archive.infolist()}
    assert parts["dex"] == sizes["classes.dex"]
    assert parts["runtime"] == sum(size for name, size in sizes.items() if name.startswith("lib/"))
    assert parts["model"] == sizes["assets/bundle/model.onnx"]
    assert parts["tokenizer"] == sizes["assets/bundle/vocab.txt"]
    assert parts["resources"] > sizes["resources.arsc"]
    assert sum(parts.values()) == said["size_bytes"] == path.stat().st_size
    assert said["without_runtime_and_model_bytes"] == said["size_bytes"] - parts["runtime"] - parts["model"]


def test_what_it_is_not_is_said(built: tuple[Path, dict[str, Any]]) -> None:
    _, said = built
    catalog = tomllib.loads((DEMO / "gradle/libs.versions.toml").read_text("utf-8"))["versions"]
    assert said["runtime_version"] != said["gradle_runtime_version"] == catalog["onnxruntime"]
    assert said["left_out_of_manifest"] == ["dataExtractionRules (API 31)"]
    assert said["proof"] == "built and signed, not installed or run on a phone"
