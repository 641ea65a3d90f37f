"""Text files -> rows. CSV, TSV, JSON lines and Parquet; every mistake in them is named with its place."""

from __future__ import annotations

import codecs
import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillroom.errors import UsageError, did_you_mean, first_line, shown
from stillroom.extras import require

MAX_TEXT_CHARACTERS = 1_000_000  # a model reads a few thousand at most; more is a broken file
MAX_LINE_CHARACTERS = 16 * MAX_TEXT_CHARACTERS  # other columns may be long too; bounds memory
MAX_NAMES_SHOWN = 20
MAX_SCORE = 1e9  # beyond it float32 has no fractions left


@dataclass(frozen=True, slots=True)
class Row:
    """One example. pair: the second text, or None. confidence: in the label, 1.0 if not given.

    label: as kinds.py has it: a class, the labels of a multi-label row one a line, or a number.

    where: file name and line of the row's start ("reviews.csv:12"; Parquet: "reviews.parquet:row 12").
    """

    text: str
    pair: str | None
    label: str
    confidence: float = 1.0
    where: str = ""


@dataclass(frozen=True)
class Columns:
    """Column names (JSON: keys). An empty name means that the file has no such column."""

    text: str
    label: str
    pair: str = ""
    confidence: str = ""


LABEL_SEPARATOR = ","  # between the labels of one multi-label row, where they are written in one cell

Record = tuple[str, Mapping[str, Any]]  # place within the file ("12" or "row 12"), column -> value
Reader = Callable[[Path, str, list[str]], Iterator[Record]]  # path, encoding, wanted columns


def read_rows(
    path: Path, columns: Columns, encoding: str = "utf-8", kind: str = "text-classification"
) -> list[Row]:
    """Read every row of a .csv, .tsv, .jsonl, .ndjson or .parquet file (encoding is not used for Parquet).

    Labels are words or whole numbers and lose white space around them; texts stay as they are. kind: of
    kinds.KINDS. A multi-label cell holds labels with commas between them, or a list; it may be empty. The
    label of a regression is a number. An empty label column: rows without labels, as for transfer text.
    A confidence that is left empty, or null, counts as 0: nobody vouched for that label.
    Raises UsageError, naming file and line, for anything that does not fit.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"cannot read {path}: expected a file named {', '.join(READERS)}")
    _check_encoding(encoding)
    wanted = [name for name in (columns.text, columns.label, columns.pair, columns.confidence) if name]
    try:
        _check_file(path)
        label_of = LABELS[kind]
        rows = [
            _row(path, spot, record, columns, label_of) for spot, record in reader(path, encoding, wanted)
        ]
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or first_line(error)}") from None
    if not rows:
        raise UsageError(f"{path} has no data rows")
    return rows


def _check_file(path: Path) -> None:
    if not path.exists():
        raise UsageError(f"no such file: {path}")
    if path.is_dir():
        raise UsageError(f"{path} is a folder, a file is needed")
    if path.stat().st_size == 0:
        raise UsageError(f"{path} is empty")


def _check_encoding(encoding: str) -> None:
    try:
        "a".encode(encoding)  # unlike codecs.lookup this refuses codecs that are not for text, like hex
    except (LookupError, ValueError):
        raise UsageError(f"unknown encoding {encoding!r}: try utf-8 or latin-1") from None


def _check_columns(place: str, found: Iterable[str], wanted: list[str]) -> None:
    names = list(found)
    for name in wanted:
        if name not in names:
            listed = ", ".join(shown(other) for other in names[:MAX_NAMES_SHOWN])
            more = f" and {len(names) - MAX_NAMES_SHOWN} more" if len(names) > MAX_NAMES_SHOWN else ""
            hint = did_you_mean(name, names)
            raise UsageError(f"{place}: no column {name!r}{hint}; there are: {listed}{more}")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"{place}: column {shown(twice)} is there twice; rename one of them")


def _lines(path: Path, encoding: str) -> Iterator[str]:
    """Lines with their ends untouched, so that a text with line breaks in it stays as it was."""
    codec = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
    number = 0
    try:
        with path.open(encoding=codec, newline="") as file:
            while line := file.readline(MAX_LINE_CHARACTERS + 1):
                number += 1
                if len(line) > MAX_LINE_CHARACTERS:
                    raise UsageError(f"{path}:{number}: line longer than {MAX_LINE_CHARACTERS} characters")
                if "\0" in line:
                    raise UsageError(f"{path}:{number}: NUL character: this is no {encoding} text file")
                yield line
    except UnicodeError:
        raise UsageError(
            f"{path}:{_broken_line(path, codec)}: not valid {encoding}; "
            "if the file has another encoding name it, for example --encoding latin-1"
        ) from None


def _broken_line(path: Path, codec: str) -> int:
    """Number of the first line that cannot be decoded; the first reading decodes ahead and cannot tell."""
    decoder = codecs.getincrementaldecoder(codec)()
    number = 1
    with path.open("rb") as file:
        for raw in file:
            try:
                number += decoder.decode(raw).count("\n")
            except UnicodeError:
                break
    return number


def _csv(path: Path, encoding: str, wanted: list[str], delimiter: str = ",") -> Iterator[Record]:
    # The limit belongs to the process, not to a reader: put the old one back.
    old_limit = csv.field_size_limit(MAX_TEXT_CHARACTERS)
    try:
        rows = _csv_rows(path, encoding, delimiter)
        line, header = next(rows, (1, []))
        if not header:
            raise UsageError(f"{path} has no header row")
        _check_columns(f"{path}:{line}", header, wanted)
        positions = {name: header.index(name) for name in wanted}
        for line, fields in rows:
            if len(fields) != len(header):
                raise UsageError(
                    f"{path}:{line}: expected {len(header)} fields as in the header, found {len(fields)}"
                )
            yield str(line), {name: fields[position] for name, position in positions.items()}
    finally:
        csv.field_size_limit(old_limit)


def _csv_rows(path: Path, encoding: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank, each with the line on which it starts (a quoted text may span lines)."""
    reader = csv.reader(_lines(path, encoding), delimiter=delimiter, strict=True)
    start = 1
    try:
        for fields in reader:
            if fields:
                yield start, fields
            start = reader.line_num + 1
    except csv.Error as error:
        reason = str(error)
        if "end of data" in reason:
            reason = 'a quote (") is opened and never closed'
        elif "expected after" in reason:
            reason = 'text after a closing quote; a quote inside a quoted text is written twice ("")'
        elif "field limit" in reason:
            reason = f'field longer than {MAX_TEXT_CHARACTERS} characters; is a quote (") not closed?'
        raise UsageError(f"{path}:{start}: {reason}") from None


def _tsv(path: Path, encoding: str, wanted: list[str]) -> Iterator[Record]:
    return _csv(path, encoding, wanted, delimiter="\t")


def _jsonl(path: Path, encoding: str, wanted: list[str]) -> Iterator[Record]:
    for number, line in enumerate(_lines(path, encoding), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, object_pairs_hook=_unique_keys)
        except json.JSONDecodeError as error:
            raise UsageError(f"{path}:{number}: not valid JSON: {error.msg}, column {error.colno}") from None
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path}:{number}: not valid JSON: {first_line(error)}") from None
        if not isinstance(record, dict):
            raise UsageError(f"{path}:{number}: expected a JSON object, found {shown(record)}")
        _check_columns(f"{path}:{number}", record, wanted)
        yield str(number), record


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(shown(name) for name in names if names.count(name) > 1)} is there twice")
    return record


def _parquet(path: Path, encoding: str, wanted: list[str]) -> Iterator[Record]:
    require("pyarrow")
    import pyarrow
    import pyarrow.parquet

    number = 1
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _check_columns(str(path), file.schema_arrow.names, wanted)
            for batch in file.iter_batches(batch_size=1024, columns=wanted):
                for index in range(batch.num_rows):
                    record = {name: batch.column(name)[index].as_py() for name in wanted}
                    yield f"row {number}", record
                    number += 1
    except pyarrow.ArrowException as error:
        raise UsageError(f"{path} is not a readable Parquet file: {first_line(error)}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}:row {number}: text is not valid UTF-8") from None


READERS: dict[str, Reader] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".parquet": _parquet,
}


def _row(
    path: Path, spot: str, record: Mapping[str, Any], columns: Columns, label_of: Callable[[object, str], str]
) -> Row:
    def place(column: str) -> str:
        return f"{path}:{spot}: column {column!r}"

    pair, confidence = columns.pair, columns.confidence
    return Row(
        text=_text(record[columns.text], place(columns.text)),
        pair=_text(record[pair], place(pair)) if pair else None,
        label=label_of(record[columns.label], place(columns.label)) if columns.label else "",
        confidence=_confidence(record[confidence], place(confidence)) if confidence else 1.0,
        where=f"{path.name}:{spot}",
    )


def _text(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{place}: expected a text, found {shown(value)}")
    if not value.strip():
        raise UsageError(f"{place}: the text is empty")
    if len(value) > MAX_TEXT_CHARACTERS:
        raise UsageError(f"{place}: {len(value)} characters, at most {MAX_TEXT_CHARACTERS} are read")
    _check_encodable(value, place)
    return value


def _label(value: object, place: str) -> str:
    if isinstance(value, float) and not value.is_integer():
        raise UsageError(f"{place}: label {value} is no class: to predict numbers, say --task regression")
    if isinstance(value, float):
        value = int(value)  # 1.0 and 1 are one class: tools that met a gap turn whole columns into floats
    if not isinstance(value, str | int):
        raise UsageError(f"{place}: expected a label (a word or a whole number), found {shown(value)}")
    label = str(value).strip()
    if not label:
        raise UsageError(f"{place}: the label is empty")
    if len(label.splitlines()) > 1:  # labels.txt of a bundle has one a line
        raise UsageError(f"{place}: line break in label {shown(label)}")
    _check_encodable(label, place)
    return label


def _label_set(value: object, place: str) -> str:
    parts = value.split(LABEL_SEPARATOR) if isinstance(value, str) else value
    if not isinstance(parts, list):
        parts = [value]
    named = [_label(part, place) for part in parts if not (isinstance(part, str) and not part.strip())]
    return "\n".join(sorted(set(named)))


def _score(value: object, place: str) -> str:
    try:
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            number = float(value)
            if math.isfinite(number) and abs(number) < MAX_SCORE:
                return repr(number)
    except (ValueError, OverflowError):
        pass  # said below, as for every other value that is no number
    raise UsageError(f"{place}: expected a number to predict, found {shown(value)}")


LABELS: dict[str, Callable[[object, str], str]] = {
    "text-classification": _label,
    "multi-label": _label_set,
    "regression": _score,
}


def _confidence(value: object, place: str) -> float:
    if value is None or (isinstance(value, str) and not value.strip()):
        return 0.0
    try:
        if (
            isinstance(value, str | int | float)
            and not isinstance(value, bool)
            and math.isfinite(float(value))
        ):
            return float(value)
    except (ValueError, OverflowError):
        pass  # said below, as for every other value that is no number
    raise UsageError(f"{place}: expected a number as confidence, found {shown(value)}")


def _check_encodable(value: str, place: str) -> None:
    # JSON can spell half of a UTF-16 pair (\ud83d alone), which no file or tokenizer can hold.
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError(f"{place}: half of a surrogate pair in {shown(value)}") from None
