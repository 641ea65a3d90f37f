"""Text files of any size, streamed: lines of documents, in pieces that fit in memory."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from pathlib import Path

from stillroom.errors import UsageError
from stillroom.files import sha256_file

MAX_LINE_BYTES = 2**18  # a longer line is read in pieces, cut at a space where there is one


def check_text_files(files: Sequence[Path]) -> list[str]:
    """Hex sha256 of each file. Raises UsageError when one is missing or all are empty."""
    if not files:
        raise UsageError("no text: give --text FILE...")
    for path in files:
        if path.is_dir():
            raise UsageError(f"{path} is a folder: give its files, for example --text {path}/*.txt")
        if not path.is_file():
            raise UsageError(f"no such text file: {path}")
    if not any(path.stat().st_size for path in files):
        raise UsageError(f"{files[0]} is empty: give --text files with text in them")
    return [sha256_file(path) for path in files]


def pieces(path: Path) -> Iterator[tuple[str, int]]:
    """(text, bytes read for it) of every line of a UTF-8 file; "" ends a document, as the file's end does.

    A line is stripped; one beyond MAX_LINE_BYTES comes in several pieces. Raises UsageError, with file and
    line, when the bytes are not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    number, carried = 1, ""
    with path.open("rb") as file:
        while raw := file.readline(MAX_LINE_BYTES):
            try:
                text = carried + decoder.decode(raw)
            except UnicodeDecodeError:
                raise _not_utf8(path, number) from None
            ended = raw.endswith(b"\n")
            text, carried = (text, "") if ended else _cut(text)
            if ended or text.strip():
                yield text.strip(), len(raw)
            number += ended
    try:
        carried += decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise _not_utf8(path, number) from None
    if carried.strip():
        yield carried.strip(), 0
    yield "", 0


def _cut(text: str) -> tuple[str, str]:
    """A piece of an unfinished line, and the word at its end, which may go on in the next piece."""
    head, space, tail = text.rpartition(" ")
    return (head, tail) if space else (text, "")


def _not_utf8(path: Path, line: int) -> UsageError:
    return UsageError(f"{path}:{line}: not valid UTF-8: convert it, for example iconv -f latin1 -t utf-8")
