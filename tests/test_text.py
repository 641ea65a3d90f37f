"""Reading rows: what goes in comes out, and every mistake is named with its file and line."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom import text as text_module
from stillroom.errors import UsageError
from stillroom.text import Columns, Row, read_rows

COLUMNS = Columns(text="text", label="label")
WITH_CONFIDENCE = Columns(text="text", label="label", confidence="sure")

anything = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(str.strip)
no_nul = anything.filter(lambda text: "\0" not in text)
LINE_BREAK = re.compile(r"\r\n|\r|\n")


def message(path: Path, columns: Columns = COLUMNS, encoding: str = "utf-8") -> str:
    with pytest.raises(UsageError) as caught:
        read_rows(path, columns, encoding)
    text = str(caught.value)
    assert "\n" not in text and "\r" not in text
    return text


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def labels_of(path: Path) -> list[str]:
    return [row.label for row in read_rows(path, COLUMNS)]


@settings(deadline=None, max_examples=60)
@given(
    texts=st.lists(st.tuples(no_nul, no_nul), min_size=1, max_size=5), suffix=st.sampled_from(["csv", "tsv"])
)
def test_csv_round_trip(texts: list[tuple[str, str]], suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows.{suffix}"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(
                file, delimiter="\t" if suffix == "tsv" else ",", quoting=csv.QUOTE_ALL, lineterminator="\n"
            )
            writer.writerow(["text", "other", "label"])
            writer.writerows([first, second, "yes"] for first, second in texts)
        rows = read_rows(path, Columns(text="text", pair="other", label="label"))
    line = 2
    expected = []
    for first, second in texts:
        expected.append(Row(first, second, "yes", 1.0, f"rows.{suffix}:{line}"))
        line += 1 + len(LINE_BREAK.findall(first)) + len(LINE_BREAK.findall(second))
    assert rows == expected


@settings(deadline=None, max_examples=60)
@given(texts=st.lists(anything, min_size=1, max_size=5), ascii_only=st.booleans())
def test_jsonl_round_trip(texts: list[str], ascii_only: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lines = [json.dumps({"text": text, "label": 1}, ensure_ascii=ascii_only) + "\n" for text in texts]
        path = write(Path(folder), "rows.jsonl", "".join(lines))
        rows = read_rows(path, COLUMNS)
    assert rows == [Row(text, None, "1", 1.0, f"rows.jsonl:{line}") for line, text in enumerate(texts, 1)]


@settings(deadline=None, max_examples=300)
@given(
    content=st.binary(max_size=60),
    suffix=st.sampled_from(["csv", "tsv", "jsonl", "parquet"]),
    head=st.booleans(),
)
def test_any_bytes_give_rows_or_one_line(content: bytes, suffix: str, head: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), f"noise.{suffix}", (b"text,label\n" if head else b"") + content)
        try:
            assert read_rows(path, COLUMNS)
        except UsageError as error:
            assert str(path) in str(error) and len(str(error).splitlines()) == 1


def test_parquet_round_trip(tmp_path: Path) -> None:
    rows = parquet(tmp_path, {"text": ["a\nb", "سلام"], "label": [0, 1], "sure": [0.5, None]})
    assert read_rows(rows, WITH_CONFIDENCE) == [
        Row("a\nb", None, "0", 0.5, "rows.parquet:row 1"),
        Row("سلام", None, "1", 0.0, "rows.parquet:row 2"),
    ]


def parquet(folder: Path, columns: dict[str, Any]) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    parquet_files = pytest.importorskip("pyarrow.parquet")

    path = folder / "rows.parquet"
    parquet_files.write_table(pyarrow.table(columns), path)
    return path


def test_byte_order_mark_blank_lines_and_windows_ends(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbftext,label\r\n\r\n good , yes \r\n\r\n"
    assert read_rows(write(tmp_path, "a.csv", content), COLUMNS) == [
        Row(" good ", None, "yes", 1.0, "a.csv:3")
    ]
    content = b'\xef\xbb\xbf\n{"text": "good", "label": "yes"}\n'
    assert read_rows(write(tmp_path, "a.ndjson", content), COLUMNS) == [
        Row("good", None, "yes", 1.0, "a.ndjson:2")
    ]


def test_other_encodings(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,label\ncafé,oui\n".encode("latin-1"))
    assert read_rows(path, COLUMNS, "latin-1")[0].text == "café"
    path = write(tmp_path, "a.csv", "text,label\ncafé,oui\n".encode("utf-16"))
    assert read_rows(path, COLUMNS, "utf-16")[0].text == "café"


def test_labels_become_strings(tmp_path: Path) -> None:
    content = "".join(
        json.dumps({"text": "t", "label": label}) + "\n" for label in ["a", " b\t", 1, 1.0, -2, True, "1.0"]
    )
    assert labels_of(write(tmp_path, "a.jsonl", content)) == ["a", "b", "1", "1", "-2", "True", "1.0"]


def test_confidence(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,label,sure\na,x,0.25\nb,x,\nc,x, 1 \n")
    assert [row.confidence for row in read_rows(path, WITH_CONFIDENCE)] == [0.25, 0.0, 1.0]
    assert [row.confidence for row in read_rows(path, COLUMNS)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ("txt,label\na,b\n", 1, "no column 'text' (did you mean 'txt'?); there are: 'txt', 'label'"),
        ("a,b\nc,d\n", 1, "no column 'text'; there are: 'a', 'b'"),
        ("text,label,text\na,b,c\n", 1, "column 'text' is there twice"),
        ("text,label\ngood,yes\n  ,no\n", 3, "column 'text': the text is empty"),
        ("text,label\ngood, \n", 2, "column 'label': the label is empty"),
        ('text,label\n"two\nlines",yes\ngood,yes,more\n', 4, "expected 2 fields as in the header, found 3"),
        ('text,label\n"two\nlines"\n', 2, "expected 2 fields as in the header, found 1"),
        ('text,label\ngood,yes\n"never\nclosed,no\n', 3, 'a quote (") is opened and never closed'),
        ('text,label\n"say "hi" now",no\n', 2, 'a quote inside a quoted text is written twice ("")'),
        ("text,label\ngood,yes\nb\0d,no\n", 3, "NUL character"),
        (b"text,label\ngood,yes\n\ncaf\xe9,no\n", 4, "not valid utf-8"),
        (b"text,label\ngood,yes\ncut,\xe3\x81", 3, "--encoding latin-1"),
    ],
)
def test_csv_mistakes(tmp_path: Path, content: str | bytes, line: int, words: str) -> None:
    path = write(tmp_path, "bad.csv", content)
    text = message(path)
    assert text.startswith(f"{path}:{line}: ")
    assert words in text


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("{'text': 'a'}", "not valid JSON"),
        ('{"text": "a", "label": }', "not valid JSON: Expecting value, column 24"),
        ("[1, 2]", "expected a JSON object, found [1, 2]"),
        ("[" * 100_000, "not valid JSON"),
        ('{"text": "a", "label": ' + "9" * 5000 + "}", "not valid JSON"),
        ('{"text": "a", "label": "x", "text": "b"}', "key 'text' is there twice"),
        ('{"text": "a", "labels": "x"}', "no column 'label' (did you mean 'labels'?)"),
        ('{"text": 5, "label": "x"}', "column 'text': expected a text, found 5"),
        ('{"text": null, "label": "x"}', "column 'text': expected a text, found None"),
        ('{"text": " \\n", "label": "x"}', "column 'text': the text is empty"),
        ('{"text": "\\ud83d", "label": "x"}', "column 'text': half of a surrogate pair"),
        ('{"text": "a", "label": "\\ud83d"}', "column 'label': half of a surrogate pair"),
        ('{"text": "a", "label": null}', "column 'label': expected a label"),
        ('{"text": "a", "label": ["x"]}', "found ['x']"),
        ('{"text": "a", "label": {"x": 1}}', "found {'x': 1}"),
        ('{"text": "a", "label": 0.5}', "label 0.5 is no class: to predict numbers"),
        ('{"text": "a", "label": NaN}', "regression"),
        ('{"text": "a", "label": ""}', "column 'label': the label is empty"),
        ('{"text": "a", "label": "x\\ny"}', "line break in label"),
    ],
)
def test_json_mistakes(tmp_path: Path, bad: str, words: str) -> None:
    path = write(tmp_path, "bad.jsonl", f'{{"text": "fine", "label": "x"}}\n\n{bad}\n')
    text = message(path)
    assert text.startswith(f"{path}:3: ")
    assert words in text
    assert len(text) < 400


@pytest.mark.parametrize("bad", ['"high"', "NaN", "Infinity", "true", "[1]", "1" + "0" * 400])
def test_confidence_must_be_a_number(tmp_path: Path, bad: str) -> None:
    path = write(tmp_path, "bad.jsonl", f'{{"text": "a", "label": "x", "sure": {bad}}}\n')
    assert message(path, WITH_CONFIDENCE).startswith(
        f"{path}:1: column 'sure': expected a number as confidence"
    )


def test_a_second_text_may_not_be_empty(tmp_path: Path) -> None:
    path = write(tmp_path, "bad.tsv", "text\tother\tlabel\na\t\tx\n")
    assert (
        message(path, Columns("text", "label", pair="other"))
        == f"{path}:2: column 'other': the text is empty"
    )


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "none.csv"
    assert message(missing) == f"no such file: {missing}"
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    assert message(folder) == f"{folder} is a folder, a file is needed"
    empty = write(tmp_path, "empty.csv", "")
    assert message(empty) == f"{empty} is empty"
    other = write(tmp_path, "rows.xlsx", "x")
    assert (
        message(other) == f"cannot read {other}: expected a file named .csv, .tsv, .jsonl, .ndjson, .parquet"
    )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "text,label\n", "has no data rows"),
        ("a.csv", "\n\n", "has no header row"),
        ("a.csv", b"\xef\xbb\xbf", "has no header row"),
        ("a.jsonl", "\n\n", "has no data rows"),
    ],
)
def test_files_without_rows(tmp_path: Path, name: str, content: str | bytes, words: str) -> None:
    path = write(tmp_path, name, content)
    assert message(path) == f"{path} {words}"


@pytest.mark.parametrize("encoding", ["utf-9", "hex", "", "a\0", "undefined"])
def test_unknown_encoding(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path, "a.csv", "text,label\na,b\n")
    assert message(path, encoding=encoding) == f"unknown encoding {encoding!r}: try utf-8 or latin-1"


def test_texts_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = text_module.MAX_TEXT_CHARACTERS
    path = write(tmp_path, "a.csv", f"text,label\n{'a' * limit},x\n")
    assert len(read_rows(path, COLUMNS)[0].text) == limit
    path = write(tmp_path, "a.csv", f"text,label\nb,x\n{'a' * (limit + 1)},x\n")
    assert message(path).startswith(f"{path}:3: field longer than {limit} characters")
    path = write(tmp_path, "a.jsonl", json.dumps({"text": "a" * (limit + 1), "label": "x"}))
    assert message(path) == f"{path}:1: column 'text': {limit + 1} characters, at most {limit} are read"
    monkeypatch.setattr(text_module, "MAX_LINE_CHARACTERS", 20)
    path = write(tmp_path, "a.csv", f"text,label\n{'a' * 17},x\n{'b' * 18},x\n")
    assert message(path) == f"{path}:3: line longer than 20 characters"


def test_the_limit_of_the_csv_module_is_put_back(tmp_path: Path) -> None:
    before = csv.field_size_limit(12_345)
    try:
        read_rows(write(tmp_path, "a.csv", "text,label\na,x\n"), COLUMNS)
        message(write(tmp_path, "a.csv", 'text,label\n"a,x\n'))
        assert csv.field_size_limit() == 12_345
    finally:
        csv.field_size_limit(before)


def test_many_columns_are_not_all_listed(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", ",".join(f"c{number}" for number in range(30)) + "\n")
    assert message(path).endswith("'c19' and 10 more")


def test_parquet_mistakes(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"text": ["a", "b"], "label": [1.0, 0.5]})
    assert message(path).startswith(f"{path}:row 2: column 'label': label 0.5 is no class")
    path = parquet(tmp_path, {"text": ["a", None], "label": [1, 2]})
    assert message(path) == f"{path}:row 2: column 'text': expected a text, found None"
    path = parquet(tmp_path, {"txt": ["a"], "label": [1]})
    assert message(path).startswith(f"{path}: no column 'text' (did you mean 'txt'?)")
    path = parquet(tmp_path, {"text": [], "label": []})
    assert message(path) == f"{path} has no data rows"
    path = write(tmp_path, "rows.parquet", b"PAR1 not really PAR1")
    assert message(path).startswith(f"{path} is not a readable Parquet file: ")


def test_parquet_with_broken_text(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet_files = pytest.importorskip("pyarrow.parquet")

    binary = pyarrow.array([b"fine", b"caf\xe9"], pyarrow.binary())
    column = pyarrow.Array.from_buffers(pyarrow.string(), 2, binary.buffers())
    path = tmp_path / "rows.parquet"
    parquet_files.write_table(pyarrow.table({"text": column, "label": ["x", "y"]}), path)
    assert message(path) == f"{path}:row 2: text is not valid UTF-8"


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    path = write(tmp_path, "rows.parquet", "x")
    assert message(path) == 'this needs pyarrow: pip install "stillroom[parquet]"'


def test_importing_loads_nothing_heavy() -> None:
    code = "import sys, stillroom.text; print({'pyarrow', 'torch', 'numpy'} & set(sys.modules))"
    seen = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert seen.stdout.strip() == "set()"
