"""The app's own JUnit tests, as Gradle would run them: all of them, none left out."""

from __future__ import annotations

import re
import subprocess

from jvm import SOURCES, TIMEOUT_S, App, build_executorch

TEST = re.compile(r"@Test\b")


def test_every_unit_test_runs_and_none_fails(app: App) -> None:
    folder = SOURCES / "test/kotlin"
    files = sorted(folder.rglob("*Test.kt"))
    written = sum(len(TEST.findall(path.read_text("utf-8"))) for path in folder.rglob("*.kt"))
    assert written > 40 and not any("@Ignore" in path.read_text("utf-8") for path in folder.rglob("*.kt"))
    names = [".".join(path.relative_to(folder).with_suffix("").parts) for path in files]
    done = subprocess.run(
        app.command("org.junit.runner.JUnitCore", names),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=app.environment(),
    )
    assert done.returncode == 0, done.stdout
    assert f"OK ({written} tests)" in done.stdout, done.stdout


def test_the_other_flavour_compiles(app: App) -> None:
    """Not run: there is no ExecuTorch library for a JVM. It fits the API of the Android package."""
    classes = build_executorch(app)
    assert (classes / "dev/stillroom/model/FlavourRuntimeKt.class").is_file()
