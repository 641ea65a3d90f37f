"""The docs tell the truth of today's code."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def update_demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("update_demo", ROOT / "docs" / "update_demo.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def block(path: Path, name: str) -> str:
    found = re.search(
        f"<!-- {name}:begin -->\n(.*?)\n<!-- {name}:end -->", path.read_text("utf-8"), re.DOTALL
    )
    assert found is not None
    return found[1]


def test_readme_table_is_that_of_the_recorded_run(update_demo: ModuleType) -> None:
    assert block(ROOT / "README.md", "demo") == update_demo.demo_block()


def test_log_table_is_that_of_the_recorded_seeds(update_demo: ModuleType) -> None:
    assert len(list((ROOT / "docs" / "demo").glob("seed-*.json"))) >= 3
    assert block(ROOT / "docs" / "log.md", "seeds") == update_demo.seeds_block()


@pytest.mark.parametrize("room", ["src/stillroom", "distill", "export", "benchmarks"])
def test_readme_tree_lists_every_file_once(room: str) -> None:
    section = re.search(rf"^    {room}/ .*\n((?:      .*\n)*)", README, re.MULTILINE)
    assert section is not None
    listed = re.findall(r"^      (\S+\.py) ", section[1], re.MULTILINE)
    there = {path.name for path in (ROOT / room).glob("*.py")} - {"__init__.py", "__main__.py"}
    assert sorted(listed) == sorted(there)


def test_readme_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "android_demo" / "README.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_readme_names_every_verb() -> None:
    from stillroom.cli import VERBS

    for verb in VERBS:
        assert f"| `stillroom {verb}" in README


def test_versions_agree() -> None:
    import tomllib

    import stillroom

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == stillroom.__version__
    assert f"## {stillroom.__version__} " in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_constraints_hold_the_pins() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    constraints = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    wanted = [
        *project["dependencies"],
        *(pin for pins in project["optional-dependencies"].values() for pin in pins),
    ]
    for pin in wanted:
        if "==" in pin:
            assert pin in constraints
