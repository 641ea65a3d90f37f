"""The app's resources as aapt2 resolves them, as far as the app uses them: values, styles and layouts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

APP = Path(__file__).parents[2] / "android_demo" / "app" / "src" / "main"
RES = APP / "res"
ANDROID = "{http://schemas.android.com/apk/res/android}"
Element = ElementTree.Element


@dataclass(frozen=True)
class Resources:
    """Values by type and name: later folders (night, a language) have won already."""

    colors: dict[str, str]
    dimens: dict[str, str]
    strings: dict[str, str]
    plurals: dict[str, dict[str, str]]
    arrays: dict[str, list[str]]
    styles: dict[str, Element]

    def style(self, name: str) -> dict[str, str]:
        """Attributes of a style without their prefix; the app's own parents first."""
        element = self.styles[name]
        parent = element.get("parent", name.rpartition(".")[0])
        values = {} if not parent or parent.startswith("@android:") else self.style(parent)
        items = {item.get("name", "").removeprefix("android:"): item.text or "" for item in element}
        return values | items

    def attributes(self, view: Element) -> dict[str, str]:
        """Attributes of a view without their prefix, its style's below its own."""
        style = view.get("style", "")
        own = {
            key.removeprefix(ANDROID): value for key, value in view.attrib.items() if key.startswith(ANDROID)
        }
        return (self.style(style.removeprefix("@style/")) if style else {}) | own

    def color(self, reference: str) -> str:
        """#RRGGBB of a colour or of a reference to one."""
        if reference.startswith("@color/"):
            return self.color(self.colors[reference.removeprefix("@color/")])
        assert re.fullmatch("#[0-9A-Fa-f]{6}|#[0-9A-Fa-f]{8}", reference), reference
        return reference

    def size(self, reference: str) -> str:
        """A size with its unit: 16sp, 48dp."""
        return self.dimens[reference.removeprefix("@dimen/")] if reference.startswith("@") else reference


def parse(file: Path) -> Element:
    """The root of one of this project's own files."""
    return ElementTree.parse(file).getroot()  # noqa: S314


def load_resources(night: bool = False, language: str = "") -> Resources:
    """What a device shows by night or day, in a language other than English where one is named."""
    found = Resources({}, {}, {}, {}, {}, {})
    for folder in ("values", f"values-{language}" if language else "", "values-night" if night else ""):
        for file in sorted((RES / folder).glob("*.xml")) if folder else ():
            for element in parse(file):
                add(found, element)
    return found


def add(found: Resources, element: Element) -> None:
    name = element.get("name", "")
    if element.tag == "color":
        found.colors[name] = element.text or ""
    elif element.tag == "dimen":
        found.dimens[name] = element.text or ""
    elif element.tag == "string":
        found.strings[name] = unescaped(element.text or "")
    elif element.tag == "plurals":
        found.plurals[name] = {item.get("quantity", ""): unescaped(item.text or "") for item in element}
    elif element.tag == "string-array":
        found.arrays[name] = [unescaped(item.text or "") for item in element]
    elif element.tag == "style":
        found.styles[name] = element


def unescaped(text: str) -> str:
    """A string resource as the app gets it."""
    if text.startswith('"') and text.endswith('"'):
        return text[1:-1]
    return re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), text.strip())


def layouts() -> dict[str, Element]:
    """Every layout file's root by the file's name."""
    return {file.stem: parse(file) for file in sorted((RES / "layout").glob("*.xml"))}


def views() -> Iterator[tuple[str, Element]]:
    """Every view of every layout, with the layout's name."""
    for name, root in layouts().items():
        for view in root.iter():
            yield name, view


def id_of(view: Element) -> str:
    return view.get(f"{ANDROID}id", "").rpartition("/")[2]
