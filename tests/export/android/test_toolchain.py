"""The tools that build the app: each pinned; read back only whole. They are fetched in tests/android."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stillroom.cli import main
from stillroom.errors import CheckFailed, UsageError
from stillroom.export.android import compile as compiling
from stillroom.export.android import toolchain
from stillroom.export.android.toolchain import TABLE, fetch_toolchain, load_toolchain
from stillroom.fetch import read_table
from stillroom.files import sha256_file, write_json


def test_every_piece_is_pinned() -> None:
    table = read_table(TABLE)
    entries = [*table["deb"], *table["npm"], *table["wheel"]]
    assert len(entries) >= 29 and table["archive"].startswith("https://")
    assert all(len(entry["sha256"]) == 64 for entry in entries)
    assert all("==" in entry["requirement"] for entry in table["wheel"])
    assert all(entry["address"].startswith("https://registry.npmjs.org/") for entry in table["npm"])


def make_toolchain(folder: Path) -> Path:
    """A folder that looks fetched, with one tool."""
    made = toolchain._folder_of(folder)
    made.mkdir(parents=True)
    (made / "d8.jar").write_bytes(b"jar")
    write_json(made / "files.json", {"d8.jar": sha256_file(made / "d8.jar")})
    return made


def test_tools_are_read_back_only_as_they_were_fetched(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"not in .*: stillroom android build --fetch, or python -m"):
        load_toolchain(tmp_path)
    made = make_toolchain(tmp_path)
    assert load_toolchain(tmp_path).d8_jar == made / "d8.jar"
    (made / "d8.jar").write_bytes(b"jaR")
    with pytest.raises(UsageError, match=r"d8\.jar was changed .*stillroom android build --fetch"):
        load_toolchain(tmp_path)
    (made / "d8.jar").unlink()
    with pytest.raises(
        UsageError, match=r"d8\.jar is missing: remove .*, then stillroom android build --fetch"
    ):
        load_toolchain(tmp_path)


def test_what_is_there_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "_unpack_all", lambda *given: 1 / 0)
    make_toolchain(tmp_path)
    assert fetch_toolchain(tmp_path) == load_toolchain(tmp_path)
    with pytest.raises(ZeroDivisionError):
        fetch_toolchain(tmp_path / "elsewhere")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_elsewhere_than_on_linux_gradle_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    with pytest.raises(UsageError, match=r"run on x86-64 Linux, this is linux arm64: build with Gradle"):
        fetch_toolchain(tmp_path)


def test_another_table_is_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_toolchain(tmp_path)
    changed = tmp_path / "toolchain.toml"
    changed.write_text(TABLE.read_text("utf-8") + "\n", "utf-8")
    monkeypatch.setattr(toolchain, "TABLE", changed)
    with pytest.raises(UsageError, match="not in"):
        load_toolchain(tmp_path)


def test_without_a_jdk_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"there is no java: install a JDK of 17 or newer"):
        compiling.require_jdk()


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (
            "print('working'); sys.exit('x.xml:3: error: no such thing')",
            "aapt2: x.xml:3: error: no such thing",
        ),
        ("sys.exit(3)", "aapt2: exit code 3"),
        ("print('one'); print('two'); sys.exit(1)", "aapt2: one"),
    ],
)
def test_a_tools_error_is_one_line(code: str, told: str) -> None:
    with pytest.raises(CheckFailed) as caught:
        compiling.run_tool([sys.executable, "-c", f"import sys; {code}"], name="aapt2")
    assert str(caught.value) == told


def test_a_tool_that_does_not_start_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^aapt2 does not start: No such file or directory: .*/aapt2$"):
        compiling.run_tool([tmp_path / "aapt2"])


def test_help_says_how(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["android", "--help"], ["android", "build", "--help"]):
        with pytest.raises(SystemExit) as left:
            main(words)
        assert left.value.code == 0
        said = capsys.readouterr().out
        assert "example: stillroom android build --project android_demo --fetch" in said
    assert "--flavour" in said and "--json" in said


def test_the_fetching_loads_nothing_heavy() -> None:
    code = "import sys, stillroom.export.android.toolchain; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "onnxruntime", "transformers", "onnx"} & set(done.stdout.split())
