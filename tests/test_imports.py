"""Who may import whom, what a bare import loads, and what the packaging names."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = {"stillroom": "src/stillroom", "stillroom.distill": "distill", "stillroom.export": "export",
         "stillroom.benchmarks": "benchmarks"}  # fmt: skip
# These put the rooms together; everything else in the core knows of none of them.
ENTRIES = ("__init__", "__main__", "cli", "cli_*", "doctor", "pipeline", "step_*")
HEAVY = ("torch", "transformers", "onnxruntime", "onnxruntime_extensions", "onnx", "onnxscript", "onnx_ir",
         "tokenizers", "safetensors", "accelerate", "pyarrow", "matplotlib", "sklearn", "huggingface_hub",
         "datasets")  # fmt: skip
MAX_LINES = 400


def sources() -> list[tuple[str, Path]]:
    return [
        (package, path) for package, folder in ROOMS.items() for path in sorted((ROOT / folder).rglob("*.py"))
    ]


def imported(path: Path) -> set[str]:
    """Full names of all modules a file imports, at its top, inside functions, and for type checkers.

    "from package import name" counts as package.name too: name may be a module.
    """
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: an import names its package"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room_of(module: str) -> str:
    """The package of a module of ours, "" for one that is not."""
    rooms = [room for room in ROOMS if module == room or module.startswith(f"{room}.")]
    return max(rooms, key=len, default="")


def is_entry(path: Path) -> bool:
    return any(path.match(f"{entry}.py") for entry in ENTRIES)


def is_entry_of(room: str, path: Path) -> bool:
    """Every room may have a __main__.py; the other entries are the core's."""
    return is_entry(path) and (room == "stillroom" or path.stem == "__main__")


ALLOWED = {
    "stillroom": {"stillroom"},
    "stillroom.distill": {"stillroom", "stillroom.distill"},
    "stillroom.export": {"stillroom", "stillroom.export"},
    "stillroom.benchmarks": {"stillroom", "stillroom.export", "stillroom.benchmarks"},
}


@pytest.mark.parametrize(("room", "path"), sources(), ids=lambda it: it.name if isinstance(it, Path) else it)
def test_rooms_import_only_what_they_may(room: str, path: Path) -> None:
    allowed = (
        set(ROOMS) if is_entry(path) and (room == "stillroom" or path.stem == "__main__") else ALLOWED[room]
    )
    for module in imported(path):
        assert room_of(module) in {"", *allowed}, f"{path.relative_to(ROOT)} imports {module}"


@pytest.mark.parametrize(("room", "path"), sources(), ids=lambda it: it.name if isinstance(it, Path) else it)
def test_nothing_imports_what_puts_it_together(room: str, path: Path) -> None:
    # Else a room would, by way of an entry file, import every other room.
    if is_entry_of(room, path):
        return
    entries = {
        f"stillroom.{entry.stem}" for entry in (ROOT / ROOMS["stillroom"]).glob("*.py") if is_entry(entry)
    }
    assert {"stillroom.cli", "stillroom.pipeline", "stillroom.step_train"} <= entries
    assert not imported(path) & (entries | {"stillroom.load_bundle"})


def test_the_reading_of_imports_sees_every_kind(tmp_path: Path) -> None:
    lines = ["import torch.nn as nn, os", "from stillroom import export", "def f():"]
    lines += ["    from stillroom.distill import x", "if TYPE_CHECKING:", "    import stillroom.scheme"]
    (tmp_path / "a.py").write_text("\n".join(lines), encoding="utf-8")
    found = imported(tmp_path / "a.py")
    assert {"torch.nn", "os", "stillroom.export", "stillroom.distill.x", "stillroom.scheme"} <= found
    assert room_of("stillroom.export") == room_of("stillroom.export.x") == "stillroom.export"
    assert room_of("stillroom.exports") == room_of("stillroom.files") == "stillroom"
    assert room_of("stillrooms") == room_of("torch.nn") == ""


def test_no_file_is_called_like_a_package_it_imports() -> None:
    # Run as a script, or put on a path, such a file would be imported instead of the package.
    outside = {module.split(".")[0] for _, path in sources() for module in imported(path)} - {"stillroom"}
    assert {"torch", "numpy", "onnxruntime", "json"} <= outside
    assert not {path.stem for _, path in sources()} & outside


def in_a_fresh_process(code: str, **environment: str) -> list[str]:
    """Names of the modules loaded after the code ran (its own output is dropped)."""
    program = (
        f"import contextlib, io, json, os, sys\nwith contextlib.redirect_stdout(io.StringIO()):\n"
        f"    exec({code!r})\n"
        "print(json.dumps([os.environ.get('ORT_DISABLE_TELEMETRY'), *sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={
            **{name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"},
            **environment,
        },
    )
    return json.loads(done.stdout)


HELP = """
from stillroom.cli import main
try:
    main(["--help"])
except SystemExit as leaving:
    assert leaving.code == 0
"""
LIGHT = {
    "the package": "import stillroom",
    "its help": HELP,
    "a run's steps": "import stillroom.pipeline, stillroom.splits, stillroom.recipe",
    "checking a model folder": "import stillroom.model_folder, stillroom.student, stillroom.tokens",
    "distill": "import stillroom.distill",
    "export": "import stillroom.export",
    "results": "import stillroom.benchmarks.results, stillroom.benchmarks.report",
}


@pytest.mark.parametrize("what", LIGHT)
def test_nothing_heavy_is_loaded(what: str) -> None:
    telemetry, *modules = in_a_fresh_process(LIGHT[what])
    assert "stillroom" in modules
    assert not {module.split(".")[0] for module in modules} & set(HEAVY)
    assert telemetry == "1"


def test_telemetry_is_off_whatever_was_set_before() -> None:
    assert in_a_fresh_process("import stillroom", ORT_DISABLE_TELEMETRY="0")[0] == "1"


def test_load_bundle_is_there_when_asked_for() -> None:
    _, *modules = in_a_fresh_process("import stillroom\nassert callable(stillroom.load_bundle)")
    assert "stillroom.export.bundle" in modules
    assert not {"torch", "transformers"} & set(modules)


def test_unknown_names_are_attribute_errors() -> None:
    import stillroom
    import stillroom.distill

    with pytest.raises(AttributeError, match="no attribute 'lode_bundle'"):
        _ = stillroom.lode_bundle
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        _ = stillroom.distill.distil


def package_folders() -> Iterator[Path]:
    """Folders with an __init__.py, wherever they lie in the sources."""
    for top in sorted(ROOT.iterdir()):
        if (
            top.is_dir()
            and not top.name.startswith(".")
            and top.name not in ("build", "dist", "runs", "tests")
        ):
            yield from (path.parent for path in top.rglob("__init__.py"))


def test_every_package_is_installed() -> None:
    packaging = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    named = {package: ROOT / folder for package, folder in packaging["package-dir"].items()}
    assert sorted(packaging["packages"]) == sorted(named)
    assert set(named.values()) == set(package_folders())
    assert {
        package: str(folder.relative_to(ROOT)) for package, folder in named.items() if package in ROOMS
    } == ROOMS


@pytest.mark.parametrize(("room", "path"), sources(), ids=lambda it: it.name if isinstance(it, Path) else it)
def test_files_stay_short(room: str, path: Path) -> None:
    lines = len(path.read_text("utf-8").splitlines())
    assert lines < MAX_LINES, f"{path.relative_to(ROOT)} has {lines} lines"
