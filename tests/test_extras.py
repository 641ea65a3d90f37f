"""A missing package is named together with the line that installs it."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import sys
import tomllib
from pathlib import Path

import pytest

from stillroom.errors import UsageError
from stillroom.extras import DISTRIBUTION_OF, EXTRA_OF, packaged_path, require, resolve_source, version_of

ROOT = Path(__file__).parents[1]
OPTIONAL = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


@pytest.mark.parametrize("module", EXTRA_OF)
def test_a_missing_package_comes_with_its_pip_line(module: str, nothing_installed: None) -> None:
    with pytest.raises(UsageError) as caught:
        require(module)
    assert str(caught.value) == f'this needs {module}: pip install "stillroom[{EXTRA_OF[module]}]"'


def test_the_first_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else object())
    with pytest.raises(UsageError, match=r"this needs onnx: .*stillroom\[onnx\]"):
        require("torch", "onnx", "onnxruntime")
    require("torch", "onnxruntime")


def test_looking_for_a_package_does_not_import_it() -> None:
    # antigravity opens a web browser when imported.
    assert "antigravity" not in sys.modules
    require("antigravity")
    assert "antigravity" not in sys.modules


def closure(extra: str) -> set[str]:
    """Names of all distributions an extra brings, those of the extras it names included."""
    found: set[str] = set()
    for requirement in OPTIONAL[extra]:
        if requirement.startswith("stillroom["):
            for inner in requirement.removeprefix("stillroom[").removesuffix("]").split(","):
                found |= closure(inner)
        else:
            found.add(requirement.split("=")[0].split(">")[0].split("<")[0].strip())
    return found


@pytest.mark.parametrize("module", EXTRA_OF)
def test_the_extra_named_brings_the_package(module: str) -> None:
    assert DISTRIBUTION_OF.get(module, module) in closure(EXTRA_OF[module])


def literals(call: str) -> set[tuple[str, str]]:
    """(file, string) for every string given to a function of this name, anywhere in the sources."""
    found = set()
    for folder in ("src/stillroom", "distill", "export", "benchmarks"):
        for path in sorted((ROOT / folder).glob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == call:
                    found |= {(path.name, word.value) for word in node.args if isinstance(word, ast.Constant)}
    return found


def test_every_package_asked_for_has_an_extra() -> None:
    asked = literals("require")
    assert {"torch", "tokenizers", "onnxruntime", "matplotlib", "pyarrow"} <= {module for _, module in asked}
    assert {module for _, module in asked} <= EXTRA_OF.keys()


def test_versions() -> None:
    assert version_of("numpy") == importlib.metadata.version("numpy")
    assert version_of("no-such-distribution") == ""


def test_files_inside_packages() -> None:
    path = packaged_path("package:numpy/numpy/__init__.py")
    assert path.is_file() and path.parent.name == "numpy"
    assert packaged_path("package:numpy/numpy").is_dir()
    assert resolve_source("package:numpy/numpy/__init__.py") == path


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("package:no-such-distribution/a.csv", "no-such-distribution is not installed: pip install"),
        ("package:numpy/no/such.csv", "numpy is installed but has no no/such.csv"),
        ("package:", "not installed"),
        ("package:/a.csv", "not installed"),
    ],
)
def test_files_that_are_in_no_package(reference: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        packaged_path(reference)


def test_sources_are_paths_as_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    expected = {"a/b.csv": "a/b.csv", "./x": "x", "~/b.csv": "/home/somebody/b.csv", "/a": "/a"}
    assert {given: str(resolve_source(given)) for given in expected} == expected


def test_a_module_of_another_name_has_a_version() -> None:
    assert version_of("sklearn") == version_of("scikit-learn") != ""
