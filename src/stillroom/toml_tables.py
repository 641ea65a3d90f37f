"""TOML tables as frozen dataclasses: types and limits are checked, a mistake is named with its line."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import tomllib
import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillroom.errors import UsageError, did_you_mean, shown

MAX_RECIPE_BYTES = 2**20  # a recipe has a few dozen lines

TYPE_WORDS = {str: "a string", int: "a whole number", float: "a finite number", bool: "true or false"}

Key = tuple[str, ...]  # ("data", "source")
Place = Callable[[Key], str]  # where a key was written, as the beginning of a message
Hint = Callable[[str, Iterable[str]], str]  # an unknown name, the known ones -> what was meant, perhaps


@dataclass(frozen=True)
class Limit:
    """What a value must be beyond its type, as a test and in words."""

    holds: Callable[[Any], bool]
    words: str


def read_toml(path: Path) -> tuple[dict[str, Any], Place]:
    """parse_toml of a file. Raises UsageError when it cannot be read or is too large for a recipe."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_RECIPE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read recipe {path}: {error.strerror}") from None
    if len(content) > MAX_RECIPE_BYTES:
        raise UsageError(f"{path} is larger than {MAX_RECIPE_BYTES} bytes: that is no recipe")
    return parse_toml(content, str(path))


def parse_toml(content: bytes, place: str) -> tuple[dict[str, Any], Place]:
    """The values of TOML text, and where each key was written in it. Raises UsageError with the line."""
    try:
        text = content.decode("utf-8-sig")
        values = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{place}:{line}: not valid UTF-8, which TOML has to be") from None
    except tomllib.TOMLDecodeError as error:
        found = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", str(error))
        reason = str(error)[: found.start()] if found else str(error)
        line = int(found[1]) if found and found[1] else text.rstrip().count("\n") + 1
        raise UsageError(f"{place}:{line}: not valid TOML: {reason}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a thousand brackets
        raise UsageError(f"{place}: not valid TOML: {error}") from None
    lines = _key_lines(text)

    def where(key: Key) -> str:
        # A key inside an inline table has no line of its own: its table's is named.
        known = (key[:length] for length in range(len(key), 0, -1))
        return next((f"{place}:{lines[part]}: " for part in known if part in lines), f"{place}: ")

    return values, where


_NAME = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_NAMES = rf"{_NAME}(?:[ \t]*\.[ \t]*{_NAME})*"
_KEY_LINE = re.compile(rf"[ \t]*(?:\[+[ \t]*(?P<table>{_NAMES})[ \t]*\]|(?P<key>{_NAMES})[ \t]*=)")


def _key_lines(text: str) -> dict[Key, int]:
    """Line number of every table header and key, which tomllib does not tell."""
    lines: dict[Key, int] = {}
    table: Key = ()
    for number, line in enumerate(text.split("\n"), start=1):
        if match := _KEY_LINE.match(line):
            names = tuple(name.strip("\"'") for name in re.findall(_NAME, match["table"] or match["key"]))
            table = names if match["table"] else table
            lines.setdefault(names if match["table"] else table + names, number)
    return lines


def as_plain(table: Any) -> dict[str, Any]:
    """A dataclass as TOML and JSON know it: tables are dicts, tuples are lists."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(table)))
    return values


def check_limits(plain: dict[str, Any], limits: dict[str, Limit], place: Place) -> None:
    """Raise UsageError unless all limits hold for values as they are written: a tuple is a list there."""
    for dotted, limit in limits.items():
        key = tuple(dotted.split("."))
        value: Any = plain
        for name in key:
            value = value[name]
        if not limit.holds(value):
            raise UsageError(f"{place(key)}{dotted} is {shown(value)}, expected {limit.words}")


def build(kind: Any, values: dict[str, Any], place: Place, table: Key = (), hint: Hint = did_you_mean) -> Any:
    """A dataclass from a TOML table: unknown keys are refused, every value must have its field's type."""
    wanted = typing.get_type_hints(kind)
    fitting = {}
    for name, value in values.items():
        key = (*table, name)
        dotted = ".".join(key)
        if name not in wanted:
            raise UsageError(f"{place(key)}unknown key {dotted!r}{hint(name, wanted)}")
        if dataclasses.is_dataclass(wanted[name]):
            if not isinstance(value, dict):
                raise UsageError(f"{place(key)}{dotted} is {shown(value)}, expected a table [{dotted}]")
            fitting[name] = build(wanted[name], value, place, key, hint)
            continue
        try:
            fitting[name] = _convert(value, wanted[name])
        except (TypeError, OverflowError):
            raise UsageError(
                f"{place(key)}{dotted} is {shown(value)}, expected {_words(wanted[name])}"
            ) from None
    return kind(**fitting)


def _convert(value: Any, wanted: Any) -> Any:
    """value as the wanted type. Raises TypeError when it is none (true and false are no numbers)."""
    if isinstance(wanted, types.UnionType):
        for option in typing.get_args(wanted):
            try:
                return _convert(value, option)
            except TypeError:
                continue
    elif typing.get_origin(wanted) is tuple:
        if isinstance(value, list | tuple):
            return tuple(_convert(item, typing.get_args(wanted)[0]) for item in value)
    elif wanted is float:
        if type(value) in (int, float) and math.isfinite(value):
            return float(value)
    elif type(value) is wanted:
        return value
    raise TypeError


def _words(wanted: Any) -> str:
    if isinstance(wanted, types.UnionType):
        return " or ".join(_words(option) for option in typing.get_args(wanted))
    if typing.get_origin(wanted) is tuple:
        return f"a list with {_words(typing.get_args(wanted)[0])} each"
    return TYPE_WORDS[wanted]
