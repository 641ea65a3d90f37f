"""The app's screens, from its resources and sources: words, labels, directions, contrast, imports."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import preview
import pytest

ROOT = Path(__file__).parents[2]
resources = preview.resources
A = resources.ANDROID
KOTLIN = resources.APP / "kotlin" / "dev" / "stillroom"
ENGLISH, PERSIAN = resources.load_resources(), resources.load_resources(language="fa")
DIRECTIONS = ("left", "right", "Left", "Right")


# --- words ---


def words(folder: str) -> dict[str, list[str]]:
    """Texts by resource name: one of a string, several of plurals and arrays."""
    found = resources.Resources({}, {}, {}, {}, {}, {})
    for element in resources.parse(resources.RES / folder / "strings.xml"):
        resources.add(found, element)
    plurals = {
        f"{name}.{quantity}": [text]
        for name, texts in found.plurals.items()
        for quantity, text in texts.items()
    }
    return {name: [text] for name, text in found.strings.items()} | plurals | found.arrays


def test_both_languages_have_the_same_words_with_the_same_arguments() -> None:
    english, persian = words("values"), words("values-fa")
    assert english.keys() == persian.keys()
    for name, texts in english.items():
        assert len(texts) == len(persian[name]), name
        for one, other in zip(texts, persian[name], strict=True):
            assert one.strip() and other.strip(), name
            arguments = [sorted(re.findall(r"%(?:\d+\$)?[a-zA-Z]", text)) for text in (one, other)]
            assert arguments[0] == arguments[1], name
            assert all(re.fullmatch(r"%\d\$[sd]", argument) for argument in arguments[0]), name


def test_plurals_have_every_form_of_their_language() -> None:
    for name, forms in (ENGLISH.plurals | PERSIAN.plurals).items():
        assert forms.keys() == {"one", "other"}, name  # CLDR's for English and for Persian


def test_persian_words_are_persian() -> None:
    same = {name for name, texts in words("values-fa").items() if texts == words("values")[name]}
    assert same == {"model_line", "bundle_sha256"}
    for name, texts in words("values-fa").items():
        assert name in same or all(re.search("[\u0600-\u06ff]", text) for text in texts), name
        assert not re.search("[كيى٠-٩]", "".join(texts)), (
            f"{name} has letters or digits that are Arabic, not Persian"
        )


def test_every_text_is_used_and_every_used_one_is_there() -> None:
    files = [*KOTLIN.rglob("*.kt"), *resources.RES.rglob("*.xml"), resources.APP / "AndroidManifest.xml"]
    sources = "\n".join(file.read_text("utf-8") for file in files)
    used = set(re.findall(r"(?:R\.|@)(?:string|plurals|array)[./](\w+)", sources))
    assert used == {*ENGLISH.strings, *ENGLISH.plurals, *ENGLISH.arrays}


def test_layouts_have_no_words_of_their_own() -> None:
    for layout, view in resources.views():
        for attribute in ("text", "hint", "contentDescription"):
            value = view.get(f"{A}{attribute}", "@string/")
            assert value.startswith("@string/"), f"{layout}: {value}"


# What the screens' Kotlin has in quotes: names for machines.
MACHINE_WORDS = {
    "application/zip", "application/json", "text/plain", "tab", "p50", "p90", "p95", "p99",
    "UNCHECKED_CAST", "DEPRECATION", "Without androidx, this is what carries an open model over a rotation",
    "Without androidx, this is how an activity answers",
}  # fmt: skip


def test_the_screens_have_no_words_of_their_own() -> None:
    screens = [KOTLIN / "ui" / f"{name}.kt" for name in ("MainActivity", "Views", "ErrorPanel", "Numbers")]
    screens += sorted((KOTLIN / "ui").glob("*Screen.kt"))
    assert len(screens) == 7
    for file in screens:
        code = re.sub(r"/\*.*?\*/", "", file.read_text("utf-8"), flags=re.DOTALL)
        code = re.sub(r"(?m)(^|\s)//.*", "", code)
        for literal in re.findall(r'"((?:[^"\\]|\\.)*)"', code):
            bare = re.sub(r"\$\{[^}]*\}|\$\w+|\\.", "", literal)
            assert not re.search(r"[^\W\d_]", bare) or literal in MACHINE_WORDS, f"{file.name}: {literal}"


# --- layouts ---


def test_what_can_be_pressed_or_filled_in_has_a_label() -> None:
    labelled = {view.get(f"{A}labelFor", "").rpartition("/")[2] for _, view in resources.views()}
    counts = {"Button": 0, "EditText": 0}
    for layout, view in resources.views():
        attributes = ENGLISH.attributes(view)
        assert "onClick" not in attributes and attributes.get("clickable") is None, layout
        assert view.tag not in ("ImageView", "ImageButton") or "contentDescription" in attributes, layout
        if view.tag == "Button":
            assert attributes.get("text", "").startswith("@string/"), f"{layout}: {resources.id_of(view)}"
        if view.tag == "EditText":
            assert resources.id_of(view) in labelled, f"{layout}: {resources.id_of(view)}"
        if view.tag in counts:
            counts[view.tag] += 1
            assert ENGLISH.size(attributes["minHeight"]) == "48dp", f"{layout}: {resources.id_of(view)}"
    assert counts == {"Button": 11, "EditText": 6}


def test_only_buttons_are_pressed() -> None:
    buttons = {resources.id_of(view) for _, view in resources.views() if view.tag == "Button"}
    sources = "".join(file.read_text("utf-8") for file in (KOTLIN / "ui").glob("*.kt"))
    pressed = set(re.findall(r"R\.id\.(\w+)\)\.setOnClickListener", sources))
    tabs = set(re.findall(r"R\.id\.(tab_\w+)", sources))
    assert pressed | tabs == buttons
    assert sources.count("setOnClickListener") == len(pressed) + 1  # the tabs' is in a loop


def test_nothing_is_left_or_right() -> None:
    for file in resources.RES.rglob("*.xml"):
        for element in resources.parse(file).iter():
            names = [*element.attrib, element.get("name", "")]
            values = [value for name, value in element.attrib.items() if name.lower().endswith("gravity")]
            values += [element.text or ""] if element.get("name", "").lower().endswith("gravity") else []
            for word in (*names, *values):
                assert not any(side in word for side in DIRECTIONS), f"{file.name}: {word}"


def test_texts_grow_with_the_font_and_scroll() -> None:
    for layout, view in resources.views():
        attributes = ENGLISH.attributes(view)
        if view.tag in ("TextView", "Button", "EditText"):
            height, size = attributes["layout_height"], ENGLISH.size(attributes["textSize"])
            assert height == "wrap_content" or view.get("style") == "@style/Tab", layout  # as high as its row
            assert size.endswith("sp") and float(size[:-2]) >= 14, layout
            assert not {"maxLines", "lines", "singleLine", "ellipsize"} & attributes.keys(), layout
    for layout, root in resources.layouts().items():
        assert not layout.startswith("screen_") or root.tag == "ScrollView"


def test_results_are_read_out_as_they_come() -> None:
    live = {resources.id_of(view) for _, view in resources.views() if view.get(f"{A}accessibilityLiveRegion")}
    assert live >= {"headline", "error", "loading", "hint", "golden", "bench_state", "saved"}


def test_texts_of_the_user_choose_their_own_direction() -> None:
    for _, view in resources.views():
        attributes = ENGLISH.attributes(view)
        users = view.tag == "EditText" or resources.id_of(view) in ("headline", "bar_label", "fact_value")
        assert not users or attributes["textDirection"] == "firstStrong"


# --- colours ---


def luminance(color: str) -> float:
    """Relative luminance by WCAG 2."""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


ON_EITHER = itertools.product(("text", "text_secondary", "accent"), ("background", "surface"))
TEXTS = [*ON_EITHER, ("on_accent", "accent"), ("on_error", "error_surface"), ("on_disabled", "disabled")]


@pytest.mark.parametrize("night", [False, True])
def test_contrast(night: bool) -> None:
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    colors = resources.load_resources(night)
    for text, behind in TEXTS:
        found = contrast(colors.color(f"@color/{text}"), colors.color(f"@color/{behind}"))
        assert found >= 4.5, f"{text} on {behind}: {found:.2f}"
    for part, behind in (("accent", "track"), ("outline", "surface"), ("outline", "background")):
        assert contrast(colors.color(f"@color/{part}"), colors.color(f"@color/{behind}")) >= 3, part


def test_day_and_night_have_the_same_colours() -> None:
    names = [
        {one.get("name") for one in resources.parse(resources.RES / folder / "colors.xml")}
        for folder in ("values", "values-night")
    ]
    assert names[0] == names[1]
    assert {name for pair in TEXTS for name in pair} <= names[0]


def test_both_forms_of_the_theme_agree() -> None:
    """values-v27 repeats the theme with what exists from API 27 on."""
    roots = [resources.parse(resources.RES / folder / "themes.xml") for folder in ("values", "values-v27")]
    themes = [{item.get("name"): item.text for item in root.find("style[@name='App']")} for root in roots]
    assert themes[1].items() - themes[0].items() == {
        ("android:navigationBarColor", "@color/background"),
        ("android:windowLightNavigationBar", "@bool/light_bars"),
    }
    assert themes[0].items() <= themes[1].items()


# --- sources ---


def test_only_the_screens_know_android() -> None:
    for room in ("tokenization", "model", "bench"):
        files = sorted(KOTLIN.parents[3].glob(f"*/kotlin/dev/stillroom/{room}/**/*.kt"))
        assert files, room
        for file in files:
            assert not re.search(
                r"^import (android|androidx|dev\.stillroom\.(ui|demo))\b", file.read_text("utf-8"), re.M
            ), file
    for file in (ROOT / "android_demo").rglob("*.kt*"):
        assert "androidx." not in file.read_text("utf-8"), file


def test_the_screens_are_thin() -> None:
    lengths = {file.name: len(file.read_text("utf-8").splitlines()) for file in (KOTLIN / "ui").glob("*.kt")}
    assert lengths["MainActivity.kt"] <= 150
    assert max(lengths.values()) <= 220, lengths


def test_telemetry_is_off_before_anything_can_load_the_runtime() -> None:
    session = (KOTLIN / "ui" / "Session.kt").read_text("utf-8")
    start = session[session.index("    init {") :]
    assert start.index('Os.setenv("ORT_DISABLE_TELEMETRY", "1", true)') < start.index("open()")
    assert session.index("    init {") < session.index("fun pick")
