"""The screens as a browser draws them from the layouts (preview.py): within their boxes, either way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import preview
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]

DEVICES = [
    preview.Device(language=language, font_scale=scale)
    for language in ("", "fa")
    for scale in (1.0, 1.5, 2.0)
]
# Words of the app that are broken or cut off, and boxes wider than the screen.
OVERFLOWS = """[...document.querySelectorAll('.TextView, .Button, .EditText')].filter(box => {
    const range = document.createRange();
    range.selectNodeContents(box);
    const text = range.getBoundingClientRect(), edge = box.getBoundingClientRect();
    if (!box.innerText) return false;
    return box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight + 1
        || text.left < edge.left - .5 || text.right > edge.right + .5
        || !box.closest('.HorizontalScrollView') && (edge.left < -.5 || edge.right > innerWidth + .5);
}).map(box => box.id + ': ' + box.innerText)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with preview.chromium.browser(preview.chromium.fetch_chromium(preview.BROWSER)) as found:
        yield found


@pytest.mark.parametrize("device", DEVICES, ids=lambda one: f"{one.language or 'en'}-{one.font_scale}")
@pytest.mark.parametrize("scene", sorted(preview.scenes.SCENES))
def test_no_text_overflows(browser: Any, tmp_path: Path, scene: str, device: Any) -> None:
    preview.open_page(browser, preview.scenes.SCENES[scene], device, tmp_path)
    assert browser.value("document.querySelectorAll('.TextView').length") >= 1
    assert browser.value("document.fonts.check('16px Latin') && document.dir || ''") == device.direction
    assert browser.value("innerWidth") == preview.WIDTH_DP
    assert browser.value(OVERFLOWS) == []
    assert browser.complaints() == []


def test_an_overflow_is_found(browser: Any, tmp_path: Path) -> None:
    preview.open_page(browser, preview.scenes.SCENES["bundle"], preview.Device(font_scale=3.5), tmp_path)
    assert browser.value(OVERFLOWS) != []


def test_bars_grow_from_the_start(browser: Any, tmp_path: Path) -> None:
    boxes = (
        "['bar_track', 'bar_fill'].map(id => document.getElementById(id).getBoundingClientRect().toJSON())"
    )
    for language, side in (("", "left"), ("fa", "right")):
        preview.open_page(
            browser, preview.scenes.SCENES["classify"], preview.Device(language=language), tmp_path
        )
        track, fill = browser.value(boxes)
        share = (preview.scenes.PERSIAN if language else preview.scenes.ENGLISH)[2]
        assert fill[side] == pytest.approx(track[side], abs=0.5)
        assert fill["width"] / track["width"] == pytest.approx(next(iter(share.values())) / 100, abs=0.005)


def test_the_pictures_of_the_documentation_are_drawn(tmp_path: Path) -> None:
    preview.main([str(tmp_path)])
    for name in preview.PICTURES:
        kept = ROOT / "docs" / "android" / f"{name}.png"
        assert kept.stat().st_size < 60_000
        with Image.open(tmp_path / f"{name}.png") as new, Image.open(kept) as old:
            assert (
                new.size
                == old.size
                == (preview.WIDTH_DP * preview.DENSITY, preview.HEIGHT_DP * preview.DENSITY)
            )
            assert len(new.getcolors()) > 10  # not one flat area
