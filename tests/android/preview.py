"""The app's screens drawn by a browser from its layout files: an approximation, not a screenshot of Android.

    python tests/android/preview.py docs/android    # needs the browser that `make test-browser` fetches

LinearLayout becomes a flexbox, dp and sp become pixels, drawables become CSS. Not drawn as Android does: the
fonts (Open Sans and DejaVu Sans, both wider than Android's), line breaks, ripples, keyboard, system bars.
"""

from __future__ import annotations

import base64
import copy
import html
import importlib.util
import io
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

HERE = Path(__file__).parent


def module(path: Path) -> Any:
    """A file beside the tests, which are no package."""
    if path.stem not in sys.modules:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        sys.modules[path.stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[path.stem])
    return sys.modules[path.stem]


chromium = module(HERE.parent / "browser" / "chromium.py")
resources = module(HERE / "android_resources.py")
scenes = module(HERE / "preview_scenes.py")

ANDROID = resources.ANDROID
BROWSER = HERE.parents[1] / "build" / "browser"
WIDTH_DP, HEIGHT_DP = 360, 800  # a common phone, not a large one
DENSITY = 2
CAPTION = (
    "An approximation drawn by a browser from the layout files, not a screenshot of Android. "
    "Measured values are made up."
)


@dataclass(frozen=True)
class Device:
    """How a screen is looked at. font_scale: the system's setting, 1.0 to 2.0."""

    night: bool = False
    language: str = ""
    font_scale: float = 1.0

    @property
    def direction(self) -> str:
        return "rtl" if self.language == "fa" else "ltr"


def fonts() -> str:
    """Open Sans of the browser's own package, and DejaVu Sans of matplotlib's for what it lacks."""
    latin = chromium.fetch_chromium(BROWSER) / "fonts" / "Open_Sans"
    spec = importlib.util.find_spec("matplotlib")
    assert spec is not None and spec.origin is not None
    others = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"
    faces = (("Latin", 400, latin / "OpenSans-Regular.ttf"), ("Latin", 700, latin / "OpenSans-Bold.ttf"),
             ("Persian", 400, others / "DejaVuSans.ttf"), ("Persian", 700, others / "DejaVuSans-Bold.ttf"),
             ("Mono", 400, others / "DejaVuSansMono.ttf"))  # fmt: skip
    return "".join(
        f"@font-face {{font-family: {family}; font-weight: {weight}; src: url({file.as_uri()})}}"
        for family, weight, file in faces
    )


def page(scene: Any, device: Device) -> str:
    """A screen as HTML."""
    values = resources.load_resources(device.night, device.language)
    root = expanded(resources.layouts()["activity_main"])
    scene.fill(root, scenes.Words(values, device.language))
    drawer = Drawer(values, device)
    background, text = values.color("@color/background"), values.color("@color/text_secondary")
    return f"""<!doctype html><html lang="{device.language or "en"}" dir="{device.direction}">
<meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>
{fonts()}
* {{box-sizing: border-box; margin: 0; min-width: 0}}
html, body {{height: 100%}}
body {{background: {background}; font-family: Latin, Persian; display: flex; flex-direction: column}}
.screen {{flex: 1; min-height: 0; display: flex; flex-direction: column}}
.caption {{font-size: 10px; color: {text}; padding: 4px 8px; direction: ltr; border-top: 1px dashed {text}}}
.ScrollView {{scrollbar-width: none}}
</style><div class="screen">{drawer.draw(root, "column")}</div><div class="caption">{CAPTION}</div></html>"""


def expanded(view: Any) -> Any:
    """A layout with every <include> replaced by what it names, whose attributes it overrides."""
    if view.tag == "include":
        included = expanded(copy.deepcopy(resources.layouts()[view.get("layout").rpartition("/")[2]]))
        included.attrib.update({key: value for key, value in view.attrib.items() if key != "layout"})
        return included
    for index, child in enumerate(list(view)):
        view[index] = expanded(child)
    return view


class Drawer:
    """Views to HTML, with the values of one device."""

    def __init__(self, values: Any, device: Device) -> None:
        self.values, self.device = values, device

    def px(self, reference: str) -> str:
        size = self.values.size(reference)
        number = float(size[:-2]) * (self.device.font_scale if size.endswith("sp") else 1)
        return f"{number:g}px"

    def draw(self, view: Any, parent: str, parent_tag: str = "") -> str:
        """One view and what is in it. parent: the direction its parent lays out in."""
        attributes = self.values.attributes(view)
        if attributes.get("visibility") == "gone":
            return ""
        css = self.box(attributes, parent) | self.spacing(attributes)
        if "background" in attributes:
            css |= self.background(attributes["background"], attributes)
        if view.tag in ("LinearLayout", "FrameLayout", "ScrollView", "HorizontalScrollView"):
            direction = (
                "row"
                if view.tag == "LinearLayout" and attributes.get("orientation") != "vertical"
                else "column"
            )
            css |= {"display": "flex", "flex-direction": direction}
            if "center_vertical" in attributes.get("gravity", ""):
                css["align-items"] = "center"
            if view.tag == "ScrollView":
                css |= {"overflow-y": "auto", "flex": "1"}
            if view.tag == "HorizontalScrollView":
                css |= {"overflow-x": "auto"}
            if parent_tag == "HorizontalScrollView":  # fillViewport
                css |= {"min-width": "100%", "width": "max-content"}
            inner = "".join(self.draw(child, direction, view.tag) for child in view)
            if view.tag == "LinearLayout" and direction == "row" and "weightSum" in attributes:
                used = sum(float(self.values.attributes(child).get("layout_weight", 0)) for child in view)
                inner += f'<div style="flex: {float(attributes["weightSum"]) - used:g} 1 0"></div>'
        elif view.tag == "ProgressBar":
            css |= {"border-radius": "50%", "border": f"4px solid {self.values.color('@color/accent')}",
                    "border-bottom-color": "transparent", "transform": "scale(.7)"}  # fmt: skip
            inner = ""
        elif view.tag == "View":
            inner = ""
        else:
            css |= self.text(view.tag, attributes)
            inner = self.words(attributes.get("text", ""))
            if not attributes.get("text", "").startswith("@string/") and not view.get("resource"):
                css["overflow-wrap"] = "anywhere"
        style = html.escape("; ".join(f"{key}: {value}" for key, value in css.items()))
        return f'<div id="{resources.id_of(view)}" class="{view.tag}" style="{style}">{inner}</div>'

    def words(self, text: str) -> str:
        if text.startswith("@string/"):
            text = self.values.strings[text.removeprefix("@string/")]
        return html.escape(text).replace("\n", "<br>")

    def box(self, attributes: dict[str, str], parent: str) -> dict[str, str]:
        """Width, height and weight."""
        css: dict[str, str] = {}
        along, across = ("width", "height") if parent == "row" else ("height", "width")
        weight = float(attributes.get("layout_weight", 0))
        for side in ("width", "height"):
            value = attributes[f"layout_{side}"]
            if value == "match_parent" and side == across:
                css["align-self"] = "stretch"
            elif value == "match_parent":
                css["flex"] = "1 1 auto" if side == "height" and parent == "column" else "1 1 100%"
                if side == "height":
                    css["min-height"] = "0"
            elif value == "wrap_content" and side == across and side == "width":
                css["align-self"] = "flex-start"
            elif value not in ("wrap_content", "0dp"):
                css[side] = self.px(value)
                css["flex"] = "none"
        if weight or attributes[f"layout_{along}"] == "0dp":
            base = "0" if attributes[f"layout_{along}"] == "0dp" else "auto"
            css["flex"] = f"{weight:g} {int(base == '0')} {base}"
            if along == "height":
                css["min-height"] = "0"
        else:
            css.setdefault("flex", "none")
        if "minHeight" in attributes:
            css["min-height"] = self.px(attributes["minHeight"])
        return css

    def spacing(self, attributes: dict[str, str]) -> dict[str, str]:
        sides = {"Top": "block-start", "Bottom": "block-end", "Start": "inline-start", "End": "inline-end"}
        css = {"padding": self.px(attributes["padding"])} if "padding" in attributes else {}
        for name, side in sides.items():
            for kind, key in (("padding", f"padding{name}"), ("margin", f"layout_margin{name}")):
                if key in attributes:
                    css[f"{kind}-{side}"] = self.px(attributes[key])
        return css

    def text(self, tag: str, attributes: dict[str, str]) -> dict[str, str]:
        lines = int(attributes.get("minLines", 1))
        css = {
            "color": self.color(attributes["textColor"], attributes),
            "font-size": self.px(attributes["textSize"]),
            "line-height": "1.35",
            "text-align": "right" if self.device.direction == "rtl" else "left",
        }
        if attributes.get("textDirection") == "firstStrong":
            css["unicode-bidi"] = "plaintext"
        if attributes.get("textDirection") == "ltr":
            css["direction"] = "ltr"
        if attributes.get("textStyle") == "bold":
            css["font-weight"] = "700"
        if attributes.get("fontFamily") == "monospace":
            css["font-family"] = "Mono"
        if tag == "Button":  # the framework's style: in the middle, a little bolder
            css |= {
                "text-align": "center",
                "font-weight": "700",
                "display": "grid",
                "align-content": "center",
            }
        if tag == "EditText" or attributes.get("textAlignment") == "textStart":
            css["text-align"] = "start"
        if lines > 1:
            css["min-height"] = f"calc({lines * 1.35}em + 24px)"
        return css

    def color(self, reference: str, attributes: dict[str, str]) -> str:
        name = reference.removeprefix("@color/")
        if name in self.values.colors:
            return str(self.values.color(reference))
        selector = resources.parse(resources.RES / "color" / f"{name}.xml")
        return str(self.values.color(chosen(selector, attributes).get(f"{ANDROID}color")))

    def background(self, reference: str, attributes: dict[str, str]) -> dict[str, str]:
        if reference.startswith("@color/"):
            return {"background": self.values.color(reference)}
        drawable = resources.parse(resources.RES / "drawable" / f"{reference.rpartition('/')[2]}.xml")
        if drawable.tag == "ripple":  # as it is at rest
            drawable = drawable[0][0]
        if drawable.tag == "selector":
            return self.background(chosen(drawable, attributes).get(f"{ANDROID}drawable", ""), attributes)
        if drawable.tag == "layer-list":
            layers = []
            for item in reversed(list(drawable)):
                color = self.values.color(item.get(f"{ANDROID}drawable"))
                below = self.px(item.get(f"{ANDROID}bottom", "0dp"))
                layers.append(f"linear-gradient({color}, {color}) 0 0 / 100% calc(100% - {below}) no-repeat")
            return {"background": ", ".join(layers)}
        css = {}
        for part in drawable:
            if part.tag == "solid":
                css["background"] = self.values.color(part.get(f"{ANDROID}color"))
            elif part.tag == "corners":
                css["border-radius"] = self.px(part.get(f"{ANDROID}radius", ""))
            elif part.tag == "stroke":
                width, color = part.get(f"{ANDROID}width", ""), part.get(f"{ANDROID}color")
                css["border"] = f"{self.px(width)} solid {self.values.color(color)}"
        return css


def chosen(selector: Any, attributes: dict[str, str]) -> Any:
    """The first item of a selector whose states are those of the view."""
    states = {
        "state_enabled": attributes.get("enabled", "true"),
        "state_selected": attributes.get("selected", "false"),
    }
    for item in selector:
        if all(item.get(f"{ANDROID}{name}", value) == value for name, value in states.items()):
            return item
    raise AssertionError(f"no item for {states}")


def open_page(browser: Any, scene: Any, device: Device, folder: Path) -> None:
    """Show a screen in the browser."""
    file = folder / "screen.html"
    file.write_text(page(scene, device), "utf-8")
    browser.events.clear()  # open() waits for the event of this page, not of the one before
    browser.call(
        "Emulation.setDeviceMetricsOverride",
        width=WIDTH_DP,
        height=HEIGHT_DP,
        deviceScaleFactor=DENSITY,
        mobile=True,
    )
    browser.open(file.as_uri())
    browser.value("document.fonts.size && document.fonts.ready.then(() => 1)")


def screenshot(browser: Any) -> bytes:
    """A PNG of few colours: flat areas and text."""
    image = Image.open(
        io.BytesIO(base64.b64decode(browser.call("Page.captureScreenshot", format="png")["data"]))
    )
    out = io.BytesIO()
    image.convert("RGB").quantize(48, dither=Image.Dither.NONE).save(out, "png", optimize=True)
    return out.getvalue()


PICTURES = {
    "classify": ("classify", Device()),
    "classify-dark": ("classify", Device(night=True)),
    "classify-persian": ("classify", Device(language="fa")),
    "benchmark": ("benchmark", Device()),
    "error-dark-persian": ("error", Device(night=True, language="fa")),
    "classify-large-font": ("classify", Device(font_scale=1.5)),
}


def main(arguments: Sequence[str]) -> None:
    """Write the pictures of the documentation into a folder."""
    out = Path(arguments[0])
    out.mkdir(parents=True, exist_ok=True)
    program = chromium.fetch_chromium(BROWSER)
    with chromium.browser(program) as browser, tempfile.TemporaryDirectory() as folder:
        for name, (scene, device) in PICTURES.items():
            open_page(browser, scenes.SCENES[scene], device, Path(folder))
            (out / f"{name}.png").write_bytes(screenshot(browser))
            print(out / f"{name}.png")


if __name__ == "__main__":
    main(sys.argv[1:])
