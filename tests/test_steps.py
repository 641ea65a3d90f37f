"""Steps are done once, redone when what they were made from changes, and never half recorded."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stillroom.errors import UsageError
from stillroom.files import staged_folder
from stillroom.steps import STATE, Run, do_step, fingerprint, open_run, recorded


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with open_run(tmp_path / "run") as opened:
        yield opened


class Work:
    """A step's work: writes its output, counts how often, and fails when told to."""

    def __init__(self, run: Run, content: str = "content") -> None:
        self.run, self.content, self.calls = run, content, 0
        self.fails: type[BaseException] | None = None

    def __call__(self) -> dict[str, Any]:
        self.calls += 1
        with staged_folder(self.run.folder / "data") as partial:
            (partial / "rows.txt").write_text(self.content, encoding="utf-8")
        if self.fails:
            raise self.fails
        return {"rows": self.calls}


MADE_FROM = {
    "recipe": {"epochs": 3, "layers": [0, 2], "name": "a", "frozen": True},
    "sha256": "a" * 64,
    "source": None,
}


def changed(**recipe: Any) -> dict[str, Any]:
    return {**MADE_FROM, "recipe": {**MADE_FROM["recipe"], **recipe}}


def step(run: Run, work: Work, made_from: dict[str, Any] = MADE_FROM) -> dict[str, Any]:
    return do_step(run, "data", made_from, ("data",), work)


def test_done_once_and_kept(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    work = Work(run)
    with pytest.raises(UsageError, match="has no finished step 'data'"):
        run.facts("data")
    assert step(run, work) == {"rows": 1}
    assert "data ..." in capsys.readouterr().err
    for _ in "twice":
        # Read back from JSON, where a tuple has become a list.
        assert step(run, work, changed(layers=(0, 2))) == {"rows": 1}
        assert "data: done before, kept" in capsys.readouterr().err
    assert work.calls == 1 and run.facts("data") == {"rows": 1}


@pytest.mark.parametrize(
    ("made_from", "said"),
    [
        (changed(epochs=4), "recipe.epochs changed (3 -> 4)"),
        (changed(layers=[0, 3]), "recipe.layers changed ([0, 2] -> [0, 3])"),
        (changed(frozen=False), "recipe.frozen changed (True -> False)"),
        (changed(more=1), "recipe.more changed (None -> 1)"),
        ({**MADE_FROM, "recipe": None}, "recipe changed ("),
        ({**MADE_FROM, "sha256": "b" * 64}, "sha256 changed (aaaaaaaaaaaa... -> bbbbbbbbbbbb...)"),
        ({"recipe": MADE_FROM["recipe"]}, "sha256 changed (aaaaaaaaaaaa... -> None)"),
        ({**changed(epochs=9), "source": "x"}, "recipe.epochs changed (3 -> 9); source changed (None -> x)"),
    ],
)
def test_a_change_is_named_and_the_step_redone(
    made_from: dict[str, Any], said: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    work = Work(run)
    step(run, work)
    assert step(run, work, made_from) == {"rows": 2}
    assert f"data: done again, because {said}" in capsys.readouterr().err
    assert step(run, work, made_from) == {"rows": 2}
    assert work.calls == 2


def edit(folder: Path) -> None:
    (folder / "rows.txt").write_text("other", encoding="utf-8")


def add(folder: Path) -> None:
    (folder / "more.txt").touch()


def move(folder: Path) -> None:
    (folder / "rows.txt").rename(folder / "other.txt")


def remove(folder: Path) -> None:
    folder.rename(folder.parent / "elsewhere")


def replace(folder: Path) -> None:
    remove(folder)
    folder.write_text("content", encoding="utf-8")


@pytest.mark.parametrize("touch", [edit, add, move, remove])
def test_a_touched_output_is_made_again(touch: Any, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    work = Work(run)
    step(run, work)
    before = recorded(run, "data")
    touch(run.folder / "data")
    capsys.readouterr()
    step(run, work)
    assert "done again, because data changed on disk or is missing" in capsys.readouterr().err
    assert work.calls == 2 and recorded(run, "data") == before
    assert [path.name for path in (run.folder / "data").iterdir()] == ["rows.txt"]


def test_a_folder_replaced_by_a_file_is_noticed(run: Run) -> None:
    work = Work(run)
    step(run, work)
    replace(run.folder / "data")
    step(run, work)
    assert work.calls == 2 and (run.folder / "data" / "rows.txt").is_file()
    assert [path.name for path in run.folder.iterdir() if path.name.startswith(".data")] == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, UsageError])
def test_a_failure_leaves_no_record(error: type[BaseException], run: Run) -> None:
    work = Work(run)
    work.fails = error
    for made_from in (MADE_FROM, changed(epochs=4)):
        with pytest.raises(error):
            step(run, work, made_from)
        assert not run.record("data").exists()
    work.fails = None
    assert step(run, work) == {"rows": 3}
    # Nor may the record of an earlier success stand for a redoing that failed.
    work.fails = error
    with pytest.raises(error):
        step(run, work, changed(epochs=5))
    assert not run.record("data").exists()
    work.fails = None
    step(run, work)
    assert work.calls == 5


def test_facts_that_are_no_json_are_not_recorded(run: Run) -> None:
    with pytest.raises(ValueError, match="JSON"):
        do_step(run, "data", {}, (), lambda: {"loss": float("nan")})
    assert not run.record("data").exists()


def test_steps_know_their_own_records(run: Run) -> None:
    work = Work(run)
    step(run, work)
    do_step(run, "other", {"a": 1}, (), lambda: {"b": 2})
    assert run.facts("other") == {"b": 2} and run.facts("data") == {"rows": 1}
    first = recorded(run, "data", "other")
    assert first.keys() == {"data", "other"}
    work.content = "more"
    step(run, work, changed(epochs=4))
    # What builds on this step sees what it wrote, not when.
    assert recorded(run, "data")["data"] != first["data"]
    work.content = "content"
    step(run, work, changed(epochs=5))
    assert recorded(run, "data", "other") == first


def test_a_record_tells_what_was_done(run: Run) -> None:
    step(run, Work(run))
    record = json.loads(run.record("data").read_text("utf-8"))
    assert record["made_from"] == MADE_FROM and record["facts"] == {"rows": 1}
    assert record["outputs"] == {"data": fingerprint(run.folder / "data")}
    assert record["seconds"] >= 0


def test_fingerprints(tmp_path: Path) -> None:
    assert fingerprint(tmp_path / "absent") == ""
    (tmp_path / "file").write_text("x", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    found = {fingerprint(tmp_path / name) for name in ("file", "folder", "absent")}
    assert len(found) == 3


def test_a_new_folder_becomes_a_run(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "deep" / "er"):
        with open_run(folder) as run:
            assert run.folder == folder and (folder / STATE).is_dir()
            assert run.work.is_relative_to(folder / STATE)
        with open_run(folder):
            pass


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("x", encoding="utf-8")
    for fresh in (False, True):
        with (
            pytest.raises(UsageError, match="not empty and not a stillroom run"),
            open_run(tmp_path / "letters", fresh=fresh),
        ):
            pass
    assert [path.name for path in (tmp_path / "letters").iterdir()] == ["dear.txt"]


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(UsageError, match="is a file: --out needs a folder"), open_run(tmp_path / "file"):
        pass


def test_a_second_stillroom_is_refused(tmp_path: Path) -> None:
    with open_run(tmp_path / "run") as run:
        step(run, Work(run))
        for fresh in (False, True):
            with (
                pytest.raises(UsageError, match="another stillroom is at work"),
                open_run(tmp_path / "run", fresh=fresh),
            ):
                pass
        assert run.facts("data") == {"rows": 1}
        with open_run(tmp_path / "another"):
            pass
    with open_run(tmp_path / "run") as run:
        assert run.facts("data") == {"rows": 1}


HOLD = """
import sys
from pathlib import Path
from stillroom.steps import open_run
with open_run(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_killed_process_holds_no_lock(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None and other.stdout.readline() == "locked\n"
            with pytest.raises(UsageError, match="another stillroom is at work"), open_run(tmp_path / "run"):
                pass
        finally:
            other.kill()
    with open_run(tmp_path / "run"):
        pass


def test_an_exception_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_run(tmp_path / "run"):
        raise KeyboardInterrupt
    with open_run(tmp_path / "run"):
        pass


def test_fresh_forgets_what_was_done(tmp_path: Path) -> None:
    made = ("data", "teacher", "student", "baseline", "artifacts", "bundle", "report")
    with open_run(tmp_path / "run") as run:
        step(run, Work(run))
        for name in made:
            (run.folder / name).mkdir(exist_ok=True)
        (run.work / "student").mkdir(parents=True)
        (run.folder / "notes.txt").write_text("the user's own", encoding="utf-8")
    with open_run(tmp_path / "run") as run:
        assert run.facts("data") == {"rows": 1} and (run.work / "student").is_dir()
    with open_run(tmp_path / "run", fresh=True) as run:
        assert not run.record("data").exists() and not run.work.exists()
        assert {path.name for path in run.folder.iterdir()} == {STATE, "notes.txt"}
        work = Work(run)
        step(run, work)
        assert work.calls == 1
