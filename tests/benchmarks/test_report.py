"""The report says what the results say, loads nothing, and shows names as text."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.parsers import expat

import pytest

from stillroom.benchmarks.headline import best_row, p50_ratio, reference_row, tiles, times
from stillroom.benchmarks.plots import DARK, LIGHT, scatter_svg
from stillroom.benchmarks.report import headline, markdown_table, write_report
from stillroom.benchmarks.results import RowFacts, result_row
from stillroom.errors import UsageError
from stillroom.files import read_json

pytest.importorskip("matplotlib")

EVIL = "<script>alert(1)</script>"
VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """Tags in order, text, and whether every tag is closed by its own."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def xml_text(text: str) -> str:
    """The character data of an XML text; raises when it is not well formed."""
    found: list[str] = []
    parser = expat.ParserCreate()
    parser.CharacterDataHandler = found.append
    parser.Parse(text, True)
    return "".join(found)


def written(results: dict[str, Any], folder: Path) -> dict[str, str]:
    write_report(results, folder)
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def rename(results: dict[str, Any], name: str) -> None:
    """Give the last artifact another name."""
    results["artifacts"][-1]["name"] = name


def test_the_files_are_there_and_the_numbers_survive(sample_results: dict[str, Any], tmp_path: Path) -> None:
    files = written(sample_results, tmp_path / "report")
    assert set(files) == {"results.json", "report.md", "report.html", "model-card.md", "plot.svg"}
    assert read_json(tmp_path / "report" / "results.json") == sample_results


def test_the_page_is_whole_and_loads_nothing(sample_results: dict[str, Any], tmp_path: Path) -> None:
    text = written(sample_results, tmp_path)["report.html"]
    page = Page(text)
    assert page.open == []
    assert page.tags.count("svg") == 4
    assert not {"script", "link", "img", "iframe", "object", "image"} & set(page.tags)
    assert "://" not in re.sub(r'xmlns(:xlink)?="http://www\.w3\.org/[^"]*"', "", text)
    links = [value for name, value in page.attributes if name in ("href", "src", "xlink:href")]
    assert all(value is not None and value.startswith("#") for value in links)
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert ("name", "viewport") in page.attributes
    assert "prefers-color-scheme: dark" in text and DARK.paper in text
    assert "No phone was measured" in page.text


def test_plots_on_the_page_take_all_colours_from_the_palette(
    sample_results: dict[str, Any], tmp_path: Path
) -> None:
    files = written(sample_results, tmp_path)
    plots = re.findall(r"<svg.*?</svg>", files["report.html"], flags=re.DOTALL)
    assert len(plots) == 4
    assert [re.findall(r"#[0-9a-f]{6}\b", plot) for plot in plots] == [[]] * 4
    assert LIGHT.paper in files["plot.svg"]
    assert "system-ui" in files["plot.svg"] and "DejaVu" not in files["plot.svg"]


def test_names_are_shown_as_text(sample_results: dict[str, Any], tmp_path: Path) -> None:
    names = [
        EVIL,
        'a" onload="alert(1)',
        "$x$ $\\bad$",
        "]]> & <!--",
        'style="font-family: <x',
        "模型 ۱" + "n" * 99,
    ]
    rows = [*sample_results["models"], *sample_results["artifacts"]]
    new_names = {row["name"]: name for row, name in zip(rows, names, strict=True)}
    for row in rows:
        row.update(name=new_names[row["name"]], source=new_names.get(row["source"]))
    sample_results["recipe"]["name"] = EVIL
    sample_results["task"]["labels"] = [EVIL, names[1]]
    sample_results["data"]["fixed_answer"] = EVIL
    sample_results["notes"] = names
    sample_results["machine"]["cpu"] = EVIL
    files = written(sample_results, tmp_path)
    page = Page(files["report.html"])
    assert page.open == []
    assert all(name in page.text for name in names)
    assert "script" not in page.tags and not any(key.startswith("on") for key, _ in page.attributes)
    for plot in re.findall(r"<svg.*?</svg>", files["report.html"], flags=re.DOTALL):
        xml_text(plot)
    code = "    "  # Markdown shows the indented command as it is
    assert not any("<script" in line for line in files["report.md"].splitlines() if not line.startswith(code))
    assert all(name[:20] in xml_text(files["plot.svg"]) for name in names)


def test_markdown_keeps_its_columns_whatever_the_name(sample_results: dict[str, Any]) -> None:
    rename(sample_results, "a|b `c` *d* [e](f)")
    lines = markdown_table(sample_results).splitlines()
    assert len(lines) == 2 + 6
    bars = [len(re.findall(r"(?<!\\)\|", line)) for line in lines]
    assert len(set(bars)) == 1
    assert lines[-1].startswith(r"| a\|b \`c\` \*d\* \[e\](f) |")


def test_the_table_shows_each_figure_in_its_unit(sample_results: dict[str, Any]) -> None:
    row = sample_results["artifacts"][2]
    row.update(
        size_bytes=17_531_000,
        flip_rate=0.0044,
        scores={"accuracy": 0.92034, "macro_f1": 0.9},
        peak_rss_bytes=104_400_000,
    )
    header, _, *lines = markdown_table(sample_results).splitlines()
    cells = dict(zip(header.split(" | "), lines[-1].split(" | "), strict=True))
    assert (cells["size, MB"], cells["flips, %"], cells["accuracy, %"]) == ("17.5", "0.44", "92.03")
    assert cells["parameters, M"] == "17.3"
    assert cells["peak RSS, MB |"] == "104 |"
    assert cells["p50 at 128, ms"] == f"{row['latency_ms']['p50']:.2f}"


def test_both_reports_show_size_and_evaluation_pass(sample_results: dict[str, Any], tmp_path: Path) -> None:
    for row, ms in zip(
        [*sample_results["models"], *sample_results["artifacts"]],
        [8400, 4400, 4300, 7000, 3000, 1250],
        strict=True,
    ):
        row["evaluation_pass_ms"] = float(ms)
    files = written(sample_results, tmp_path)
    section = files["report.md"].split("## Size and a full evaluation pass\n\n")[1].split("\n\n## ")[0]
    assert "| onnx-int8-dynamic | 17.3 | 17.5 | 1.25 | 6.7 |" in section
    assert "| teacher | 22.7 | 90.9 | 8.40 | 1.0 |" in section
    assert "1,000 rows of the validation split" in section and "with 2 threads on" in section
    page = Page(files["report.html"])
    assert page.open == []
    assert "Size and a full evaluation pass" in page.text and "evaluation pass, s" in page.text
    assert "1,000 rows of the validation split" in page.text and "8.40" in page.text


def test_the_markdown_report_says_how_to_make_it_again(
    sample_results: dict[str, Any], tmp_path: Path
) -> None:
    text = written(sample_results, tmp_path)["report.md"]
    assert "    stillroom run demo --out runs/demo\n" in text
    assert "No phone was measured" in text
    assert "51.2 %" in text and "1,821" in text
    assert "2.1e-06" in text


def test_the_same_results_give_the_same_bytes(sample_results: dict[str, Any], tmp_path: Path) -> None:
    assert written(sample_results, tmp_path / "a") == written(copy.deepcopy(sample_results), tmp_path / "b")


def test_wrong_results_write_nothing(sample_results: dict[str, Any], tmp_path: Path) -> None:
    sample_results["artifacts"][0]["scores"]["accuracy"] = float("nan")
    with pytest.raises(UsageError):
        write_report(sample_results, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_timing_is_reported_without_plots(
    sample_results: dict[str, Any], tmp_path: Path
) -> None:
    for section in ("models", "artifacts"):
        sample_results[section] = [
            result_row(
                RowFacts(**{key: row[key] for key in RowFacts.__dataclass_fields__}), "accuracy", 0.93, None
            )
            for row in sample_results[section]
        ]
    sample_results |= {"noise": None, "sweeps": [], "limits": None, "sensitivity": None}
    files = written(sample_results, tmp_path)
    assert "plot.svg" not in files
    assert "Nothing was timed" in files["report.html"]
    assert "| teacher | 22.7 | 90.9 | – | – |" in files["report.md"]
    assert "faster" not in files["report.md"]
    assert best_row(sample_results)["name"] == "onnx-int8-dynamic"  # the smallest


def test_the_headline_compares_with_the_teachers_own_file(sample_results: dict[str, Any]) -> None:
    assert reference_row(sample_results)["name"] == "teacher-onnx-fp32"
    first = headline(sample_results)[0]
    assert "onnx-int8-dynamic is 5.2× smaller and 5." in first and "fp32 teacher in ONNX" in first
    assert "98.9 % of the teacher's accuracy" in first and "0.44 % of the test rows" in first
    sample_results["artifacts"] = sample_results["artifacts"][1:]
    assert "teacher in torch" in headline(sample_results)[0]


def constant(row: dict[str, Any], samples: list[float]) -> None:
    """Make every sample of a row at its longest length these, over and over."""
    entry = row["by_length"][-1]
    entry["samples_ms"] = [samples[place % len(samples)] for place in range(len(entry["samples_ms"]))]


def test_the_ratio_is_of_medians_and_inside_its_interval(sample_results: dict[str, Any]) -> None:
    teacher, _, best = sample_results["artifacts"]
    constant(teacher, [10.0])
    constant(best, [2.0])
    ratio = p50_ratio(teacher, best, 128)
    assert (ratio.value, ratio.low, ratio.high) == (5.0, 5.0, 5.0)
    wider = p50_ratio(teacher, best, 64)
    medians = [row["by_length"][1]["latency_ms"]["p50"] for row in (teacher, best)]
    assert wider.value == pytest.approx(medians[0] / medians[1])
    assert wider.low < wider.value < wider.high


def test_the_interval_knows_that_processes_differ(sample_results: dict[str, Any]) -> None:
    teacher, _, best = sample_results["artifacts"]
    constant(teacher, [10.0])
    entry = best["by_length"][-1]
    calls = len(entry["samples_ms"]) // 5
    entry["samples_ms"] = [ms for ms in (1.0, 1.5, 2.0, 2.5, 3.0) for _ in range(calls)]
    between = p50_ratio(teacher, best, 128)
    entry["samples_ms"] = [1.0, 1.5, 2.0, 2.5, 3.0] * calls
    within = p50_ratio(teacher, best, 128)
    assert between.high - between.low > 1.5 * (within.high - within.low)


def test_rows_that_cannot_be_told_apart_are_not_called_faster(sample_results: dict[str, Any]) -> None:
    teacher, student, best = sample_results["artifacts"]
    for row in (teacher, student, best):
        row["size_bytes"] = 1000
        for entry in row["by_length"]:
            calls, part = len(entry["samples_ms"]) // 5, 0.9 if row is best else 1.0
            entry["samples_ms"] = [
                process * part for process in (1.0, 2.0, 3.0, 4.0, 5.0) for _ in range(calls)
            ]
    assert p50_ratio(teacher, best, 128).value > 1.1
    sentence = headline(sample_results)[0]
    assert "of the same size and of the same speed" in sentence
    assert "faster" not in sentence


def test_ratios_in_words() -> None:
    assert times(5.28, "smaller", "larger", "same") == "5.3× smaller"
    assert times(0.5, "smaller", "larger", "same") == "2.0× larger"
    assert times(1.02, "smaller", "larger", "same") == times(0.98, "smaller", "larger", "same") == "same"


def test_tiles_are_the_best_rows_figures(sample_results: dict[str, Any]) -> None:
    found = {tile.label: tile for tile in tiles(sample_results)}
    assert list(found) == ["smaller", "faster", "of the teacher's accuracy", "peak memory"]
    assert found["smaller"].value == "5.2×"
    assert found["peak memory"].value == "104 MB"


def test_a_baseline_is_set_against_the_student(sample_results: dict[str, Any]) -> None:
    assert any(
        "student is 2.0 points of accuracy above student-plain" in sentence
        for sentence in headline(sample_results)
    )


def label_boxes(svg: str, names: list[str]) -> list[tuple[float, float, float, float]]:
    """Left, top, right and bottom of each row's two-line label, its width taken small."""
    boxes = []
    for name in names:
        x, y = re.findall(rf'transform="translate\(([\d.]+) ([\d.]+)\)">{name}</text>', svg)[0]
        boxes.append((float(x), float(y) - 7, float(x) + 4 * len(name), float(y) + 10))
    return boxes


def test_labels_do_not_overlap_even_where_points_do(sample_results: dict[str, Any]) -> None:
    rows = [*sample_results["models"], *sample_results["artifacts"]]
    for equal in (False, True):
        for row in rows if equal else ():
            row["size_bytes"] = 50_000_000
            row["latency_ms"]["p50"] = 9.0
        boxes = label_boxes(scatter_svg(sample_results), [row["name"] for row in rows])
        for first, second in combinations(boxes, 2):
            apart = (
                first[2] <= second[0]
                or second[2] <= first[0]
                or first[3] <= second[1]
                or second[3] <= first[1]
            )
            assert apart, (first, second)


@pytest.mark.parametrize(("smallest_mb", "log"), [(30, False), (2, True)])
def test_a_wide_range_of_sizes_is_drawn_by_powers(
    sample_results: dict[str, Any], smallest_mb: int, log: bool
) -> None:
    sample_results["artifacts"][-1]["size_bytes"] = smallest_mb * 1_000_000
    assert ("size, MB (log scale)" in scatter_svg(sample_results)) == log


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours as WCAG defines it."""

    def luminance(color: str) -> float:
        parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_colours_are_readable_on_their_paper(palette: Any) -> None:
    for name in ("ink", "muted", "teacher", "baseline", "student"):
        assert contrast(getattr(palette, name), palette.paper) >= 4.5


def test_what_was_not_measured_says_so_by_word_and_colour(
    sample_results: dict[str, Any], tmp_path: Path
) -> None:
    files = written(sample_results, tmp_path)
    assert '<details class="emulated"><summary>Emulated' in files["report.html"]
    assert '<details class="estimate"><summary>Estimate' in files["report.html"]
    assert "27.5–110 (estimate)" in files["report.html"] and "27.5–110 (estimate)" in files["report.md"]
    assert "## Emulated" in files["report.md"] and "35.33" in files["report.md"]
    sample_results |= {"emulated": None, "estimates": []}
    files = written(sample_results, tmp_path)
    assert "(estimate)" not in files["report.html"] and "mulated" not in files["report.md"]
