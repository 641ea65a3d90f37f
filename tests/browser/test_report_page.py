"""report.html in a real browser: no complaint, everything on it opens, by day, by night and on a phone."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stillroom.benchmarks.plots import DARK
from stillroom.benchmarks.report import write_report
from stillroom.files import read_json

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("chromium", Path(__file__).with_name("chromium.py"))
assert SPEC is not None and SPEC.loader is not None
chromium: Any = importlib.util.module_from_spec(SPEC)
sys.modules["chromium"] = chromium
SPEC.loader.exec_module(chromium)
PHONE = {"width": 360, "height": 740, "deviceScaleFactor": 3, "mobile": True}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the demo's own results."""
    folder = tmp_path_factory.mktemp("report")
    write_report(read_json(ROOT / "docs" / "demo" / "results.json"), folder)
    return folder / "report.html"


@pytest.fixture
def page(report: Path) -> Iterator[Any]:
    program = chromium.fetch_chromium(ROOT / "build" / "browser")
    with chromium.browser(program) as found:
        found.open(report.as_uri())
        yield found


def test_clicking_through_opens_everything_and_nothing_complains(page: Any) -> None:
    count = page.value("document.querySelectorAll('summary').length")
    assert count >= 8
    assert page.value("document.querySelectorAll('details[open]').length") == 0
    for index in range(count):
        page.click("summary", index)
        assert page.value(f"document.querySelectorAll('details')[{index}].open") is True
    assert page.value("document.querySelectorAll('figure svg').length") >= 3
    assert (
        page.value("document.body.innerText.includes('NaN') || document.body.innerText.includes('undefined')")
        is False
    )
    assert page.complaints() == []


def test_a_phone_screen_needs_no_sideways_scrolling(page: Any) -> None:
    page.call("Emulation.setDeviceMetricsOverride", **PHONE)
    page.value("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.value("document.documentElement.scrollWidth") <= PHONE["width"]
    # Tables may be wider: they scroll within their own box.
    assert page.value(
        "[...document.querySelectorAll('.scroll')].every(b => b.getBoundingClientRect().right <= 360)"
    )


def test_dark_mode_is_dark(page: Any) -> None:
    def ground() -> list[int]:
        text = page.value("getComputedStyle(document.body).backgroundColor")
        return [int(part) for part in text.removeprefix("rgb(").removesuffix(")").split(",")]

    features = [{"name": "prefers-color-scheme", "value": "light"}]
    page.call("Emulation.setEmulatedMedia", features=features)
    assert min(ground()) > 200
    page.call("Emulation.setEmulatedMedia", features=[{**features[0], "value": "dark"}])
    assert max(ground()) < 60
    paper = page.value("getComputedStyle(document.querySelector('figure')).backgroundColor")
    assert paper == "rgb({}, {}, {})".format(*bytes.fromhex(DARK.paper[1:]))


def test_a_complaint_would_be_seen(page: Any) -> None:
    page.value("setTimeout(() => { throw new Error('a test of the test') })")
    page.value("new Promise(done => setTimeout(done, 50))")
    page.value("console.error('another')")
    assert len(page.complaints()) == 2
