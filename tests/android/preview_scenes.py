"""What the previews show: the states of the app's screens, filled in as the Kotlin in ui/ fills them in."""

from __future__ import annotations

import copy
import importlib.util
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DIGITS = str.maketrans("0123456789.%", "۰۱۲۳۴۵۶۷۸۹٫٪")
# Golden vectors of the demo's bundle: text, tokens, probabilities.
ENGLISH = (
    "I love this airline, the crew was wonderful!",
    12,
    {"positive": 95.9, "negative": 2.1, "neutral": 2.0},
)
PERSIAN = (
    "این هتل عالی بود، حتماً دوباره می\u200cآیم.",
    32,
    {"neutral": 94.4, "negative": 3.2, "positive": 2.5},
)


def _resources() -> Any:
    if "android_resources" not in sys.modules:
        path = Path(__file__).with_name("android_resources.py")
        spec = importlib.util.spec_from_file_location("android_resources", path)
        assert spec is not None and spec.loader is not None
        sys.modules["android_resources"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["android_resources"])
    return sys.modules["android_resources"]


resources = _resources()
A = resources.ANDROID


@dataclass(frozen=True)
class Words:
    """Strings with their arguments, numbers as the language writes them."""

    values: Any
    language: str

    def number(self, text: object) -> str:
        return str(text).translate(DIGITS) if self.language == "fa" else str(text)

    def string(self, name: str, *arguments: object, quantity: str = "other") -> str:
        text = self.values.strings.get(name) or self.values.plurals[name][quantity]
        for index, argument in enumerate(arguments, start=1):
            shown = self.number(argument) if isinstance(argument, int) else str(argument)
            text = re.sub(rf"%{index}\$[sd]", lambda _, shown=shown: shown, text)
        assert "%" not in text.replace("%" if self.language == "" else "٪", ""), text
        return str(text)

    def name(self, text: str) -> str:
        """What BidiFormatter.unicodeWrap makes of a Latin name among Persian words."""
        return f"\u202a{text}\u202c\u200f" if self.language == "fa" else text

    def bytes(self, megabytes: float) -> str:  # the framework's own words, not the app's
        return f"{self.number(megabytes)} {'مگابایت' if self.language == 'fa' else 'MB'}"


def find(root: Any, name: str) -> Any:
    """The first view of this id."""
    return next(view for view in root.iter() if resources.id_of(view) == name)


def write(root: Any, name: str, text: str, resource: bool = True) -> None:
    """Show a text. resource: the app's own words, which have to fit; any others may be broken anywhere."""
    view = find(root, name)
    view.set(f"{A}text", text)
    view.attrib.pop(f"{A}visibility", None)
    if resource:
        view.set("resource", "yes")


def show(root: Any, name: str, yes: bool = True) -> None:
    find(root, name).set(f"{A}visibility", "visible" if yes else "gone")


def open_tab(root: Any, tab: str) -> None:
    for other in ("classify", "benchmark", "bundle"):
        find(root, f"tab_{other}").set(f"{A}selected", str(other == tab).lower())
        show(root, f"screen_{other}", other == tab)


def add_bar(root: Any, words: Words, label: str, percent: float) -> None:
    row = copy.deepcopy(resources.layouts()["row_bar"])
    write(row, "bar_label", label, resource=False)
    write(row, "bar_value", words.number(f"{percent:.1f}%"))
    find(row, "bar_fill").set(f"{A}layout_weight", str(percent / 100))
    find(root, "bars").append(row)


def add_fact(root: Any, panel: str, name: str, value: str, resource: bool = False) -> None:
    row = copy.deepcopy(resources.layouts()["row_fact"])
    write(row, "fact_name", name)
    write(row, "fact_value", value, resource)
    find(root, panel).append(row)


def golden(root: Any, words: Words, view: str) -> None:
    write(root, view, words.string("golden_equal", 32, 32, words.number("0.0012"), words.number("0.05")))


def classify(root: Any, words: Words) -> None:
    """An answer."""
    open_tab(root, "classify")
    show(root, "loading", False)
    show(root, "form")
    text, tokens, probabilities = PERSIAN if words.language == "fa" else ENGLISH
    write(root, "text", text, resource=False)
    show(root, "result")
    write(root, "headline", next(iter(probabilities)), resource=False)
    for label, percent in probabilities.items():
        add_bar(root, words, label, percent)
    write(root, "timing", words.string("timing", tokens, words.number("1.23"), words.number("12.34")))
    write(
        root,
        "model_line",
        words.string("model_line", words.name("demo"), words.name("int8-dynamic"), words.bytes(17.53)),
    )
    golden(root, words, "golden")


def pair(root: Any, words: Words) -> None:
    """A task of two texts, before the first answer."""
    open_tab(root, "classify")
    show(root, "loading", False)
    show(root, "form")
    show(root, "pair_form")
    write(root, "text_label", words.string("text_label_first"))
    write(root, "hint", words.string("classify_empty"))


def loading(root: Any, words: Words) -> None:
    """The start."""
    open_tab(root, "classify")


def error(root: Any, words: Words) -> None:
    """No bundle among the assets."""
    open_tab(root, "classify")
    show(root, "loading", False)
    show(root, "error")
    write(root, "error_title", words.string("error_missing"))
    detail = "there is no file manifest.json among the app's assets: put the bundle into the app again"
    write(root, "error_detail", detail, resource=False)


def golden_error(root: Any, words: Words) -> None:
    """A golden vector differed."""
    classify(root, words)
    panel = find(root, "golden_error")
    panel.set(f"{A}visibility", "visible")
    write(panel, "error_title", words.string("golden_differs"))
    detail = "golden vector 3 (Worst flight ever.): id 4 is 100, recorded is 2051: the tokenizer differs"
    write(panel, "error_detail", detail, resource=False)
    show(root, "golden", False)


def settings(root: Any) -> None:
    open_tab(root, "benchmark")
    for name, value in (("threads", "4"), ("warmup", "5"), ("runs", "50"), ("tokens", "32")):
        write(root, name, value)


def benchmark(root: Any, words: Words) -> None:
    """A finished measurement."""
    settings(root)
    show(root, "bench_result")
    for name, value in (("p50", "12.34"), ("p90", "23.45"), ("p95", "34.56"), ("p99", "45.67")):
        add_fact(
            root,
            "bench_facts",
            words.string(f"bench_{name}"),
            words.string("bench_ms", words.number(value)),
            True,
        )
    add_fact(root, "bench_facts", words.string("bench_memory"), words.bytes(123.4))
    add_fact(root, "bench_facts", words.string("bench_thermal"), words.values.arrays["thermal"][0], True)
    add_fact(
        root,
        "bench_facts",
        words.string("bench_battery"),
        words.string("bench_charging", words.number("80%")),
        True,
    )
    write(root, "saved", words.string("bench_done", words.name("bench-20260101-120000.json")), resource=False)


def measuring(root: Any, words: Words) -> None:
    """A measurement under way."""
    settings(root)
    show(root, "start", False)
    show(root, "cancel")
    show(root, "progress_track")
    find(root, "progress_fill").set(f"{A}layout_weight", "0.375")
    write(root, "bench_state", words.string("bench_progress", 21, 56))


def bundle(root: Any, words: Words) -> None:
    """What is in a bundle picked from storage."""
    open_tab(root, "bundle")
    write(root, "origin", words.string("bundle_origin_picked"))
    show(root, "built_in")
    golden(root, words, "bundle_golden")
    show(root, "bundle_facts")
    for name, value in (
        ("name", "demo"), ("task", "text-classification"), ("labels", "negative, neutral, positive"),
        ("max_length", words.string("tokens", 128)), ("file", "model.onnx"), ("scheme", "int8-dynamic"),
        ("size", words.bytes(17.53)), ("sha256", "35c2574d9964705b" * 4),
        ("runtime", "onnxruntime 1.32.0"), ("app_runtime", "onnxruntime 1.29.0"),
    ):  # fmt: skip
        add_fact(root, "bundle_facts", words.string(f"bundle_{name}"), value)


@dataclass(frozen=True)
class Scene:
    fill: Callable[[Any, Words], None]


SCENES = {
    one.__name__: Scene(one)
    for one in (classify, pair, loading, error, golden_error, benchmark, measuring, bundle)
}
