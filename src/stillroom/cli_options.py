"""The options of each verb: one verb, one function. Standard library only."""

from __future__ import annotations

import argparse
from pathlib import Path

from stillroom.devices import DEVICES
from stillroom.scheme import PREFERENCES, RANGE_RULES, ROUNDINGS


def run_options(verb: argparse.ArgumentParser) -> None:
    distill_options(verb)
    verb.add_argument("--no-baselines", action="store_true", help="leave out the student without a teacher")


def distill_verb_options(verb: argparse.ArgumentParser) -> None:
    distill_options(verb)
    _text_options(verb)
    verb.add_argument(
        "--no-baselines", action="store_true", help="fill-mask: leave out the student without a teacher"
    )


def teach_options(verb: argparse.ArgumentParser) -> None:
    option = verb.add_argument
    option("recipe", nargs="?", help="a .toml file of fill-mask's keys (default: none, and --set)")
    option("--task", default="fill-mask", help="fill-mask, the only one")
    option("--teacher", required=True, help="model folder: the encoder to teach")
    option("--out", type=Path, required=True, help="run folder; a second call goes on where one stopped")
    option("--freeze-encoder", action="store_true", default=None, help="train the new head only")
    option("--allow-download", action="store_true", help="let --teacher be a hub id and fetch it")
    option("--seed", type=int, help="of the new head and the training")
    option("--set", action="append", metavar="KEY=VALUE", help="any fill-mask key, as learning_rate=1e-4")
    option("--fresh", action="store_true", help="forget what an earlier call left in --out")
    _text_options(verb)


def _text_options(verb: argparse.ArgumentParser) -> None:
    """Options of fill-mask, and of training in several processes."""
    option = verb.add_argument
    option("--text", type=Path, nargs="+", help="fill-mask: UTF-8 text files; a blank line ends a document")
    option("--max-length", type=int, help="fill-mask: tokens of a row (default: 128)")
    option("--epochs", type=int, help="fill-mask: passes over the text (default: 3)")
    option("--num-processes", type=int, default=1, metavar="N", help="train in N processes on this machine")


def distill_options(verb: argparse.ArgumentParser) -> None:
    option = verb.add_argument
    option("recipe", nargs="?", default="demo", help="demo, full, or a .toml file (default: %(default)s)")
    option(
        "--out", type=Path, help="run folder (default: runs/RECIPE); a second call goes on where one stopped"
    )
    option(
        "--task",
        help="text-classification, multi-label, regression, or to distill fill-mask (default: the recipe's)",
    )
    option("--data", help="CSV, TSV, JSONL or Parquet file, in place of an embedded recipe's own")
    option("--validation", help="own validation file, otherwise split off the data")
    option("--test", help="own test file, otherwise split off the data")
    option(
        "--transfer",
        help="file of unlabelled texts for the teacher to answer: as --data, or .txt, one a line",
    )
    option("--text-column", help="column of the text (default: text)")
    option("--label-column", help="column of the label: a class, labels with commas, or a number")
    option("--pair-column", help="column of the second text, for sentence pairs")
    option("--confidence-column", help="column of a 0..1 confidence, see --set data.min_confidence")
    option("--encoding", help="of the data files (default: utf-8)")
    option("--max-train-rows", type=int, help="use at most so many training rows")
    option("--teacher", help="model folder: a pretrained encoder, or one trained on these labels")
    option("--allow-download", action="store_true", help="let --teacher be a hub id and fetch it")
    option("--seed", type=int, help="of the training (the split has its own, data.split_seed)")
    option("--set", action="append", metavar="KEY=VALUE", help="any recipe key, as student.epochs=2")
    option("--fresh", action="store_true", help="forget what an earlier call left in --out")


def export_options(verb: argparse.ArgumentParser) -> None:
    option = verb.add_argument
    option("model", type=Path, help="a Hugging Face model folder with a classification head")
    option("--format", help="see stillroom doctor (default: onnx-int8-dynamic, for ios coreml-int8-weights)")
    option(
        "--for", dest="device", choices=DEVICES,
        help="numerics that suit where it will run (docs/formats.md); options given here win",
    )  # fmt: skip
    option("--out", type=Path, required=True, help="folder to write; an artifact there is replaced")
    option(
        "--length", type=int, action="append", default=[], metavar="TOKENS",
        help="for inputs of exactly so many tokens; repeatable for coreml (default: any length)",
    )  # fmt: skip
    option(
        "--calibration", type=Path, metavar="FILE",
        help="texts to measure ranges on (int8-static) or to round by (gptq): a file as --transfer takes it",
    )  # fmt: skip
    option(
        "--calibration-rows", type=int, default=512, metavar="ROWS",
        help="so many of them, evenly spread (default: %(default)s)",
    )  # fmt: skip
    option(
        "--ranges", choices=RANGE_RULES, default="best",
        help="how int8-static cuts its ranges; best: the rule whose answers differ least (default)",
    )  # fmt: skip
    option(
        "--rounding", choices=ROUNDINGS, default="best",
        help="of int4 and palettes; best: gptq with --calibration, else nearest (default)",
    )  # fmt: skip
    option(
        "--portable", action="store_true",
        help="onnx int8: the same answers on every CPU, by 7-bit weights; see stillroom sensitivity",
    )  # fmt: skip
    option(
        "--keep", action="append", default=[], metavar="GROUP",
        help="int8-static: leave this part in fp32, as stillroom sensitivity calls it; repeatable",
    )  # fmt: skip
    option("--text-column", default="text", help="of the calibration file (default: %(default)s)")
    option("--pair-column", default="", help="of the calibration file, where the model reads two texts")
    option(
        "--library", type=Path, action="append", default=[], metavar="FILE",
        help="check this .so, .aar or .apk of your app for 16 KB pages too; repeatable",
    )  # fmt: skip
    option(
        "--text-input", action="store_true",
        help="onnx: also text.onnx, which takes a string; the app then needs onnxruntime-extensions",
    )  # fmt: skip
    option("--ios", type=int, default=0, help="coreml: oldest iOS to run on (default: the oldest that can)")
    option("--author", default="", help="coreml: for the package's metadata")
    option("--license", default="", help="coreml: for the package's metadata")


def verify_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("path", type=Path, help="a run folder or a bundle")
    verb.add_argument(
        "--jobs", type=int, default=0, help="of a run: so many artifacts at a time, each in its own process"
    )


def sensitivity_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run", type=Path, help="a run folder")
    verb.add_argument("--rows", type=int, default=512, help="to answer, at most (default: %(default)s)")


def search_options(verb: argparse.ArgumentParser) -> None:
    option = verb.add_argument
    option("run", type=Path, help="a finished run folder")
    option("--targets", default="onnx", metavar="A,B", help="formats that may win (default: %(default)s)")
    option("--max-size-mb", type=float, metavar="MB", help="of the file; 1 MB is 1,000,000 bytes")
    option("--max-p90-ms", type=float, metavar="MS", help="nine of ten answers, at the longest input")
    option("--max-rss-mb", type=float, metavar="MB", help="memory that the file adds to a process at most")
    option("--min-retention", type=float, metavar="SHARE", help="of the fp32 student's score, as 0.99")
    option("--max-flips", type=float, metavar="SHARE", help="of the fp32 student's labels, as 0.01")
    option(
        "--prefer", choices=PREFERENCES, default="size",
        help="which is best of those that hold all limits (default: %(default)s)",
    )  # fmt: skip
    option(
        "--layers", type=int, action="append", default=[], metavar="N",
        help="also train a student of so many layers; repeatable (minutes each)",
    )  # fmt: skip
    option("--minutes", type=float, default=10, help="begin nothing after this (default: %(default)s)")
    option("--rows", type=int, default=2000, help="validation rows to judge on (default: %(default)s)")
    option("--seed", type=int, default=0, help="of the draw of these rows (default: %(default)s)")
    option("--fresh", action="store_true", help="forget what an earlier search of this run measured")


def bench_options(verb: argparse.ArgumentParser) -> None:
    option = verb.add_argument
    option("folders", type=Path, nargs="*", help="artifacts, bundles or model folders")
    option(
        "--target", default="host", metavar="WHERE",
        help="host, arm64 (emulated: parity, no times), adb or adb:SERIAL[,SERIAL] (default: %(default)s)",
    )  # fmt: skip
    option(
        "--import", type=Path, nargs="+", dest="imported", metavar="FILE",
        help="show what the app's benchmark screen wrote instead; folders: check that it is of these files",
    )  # fmt: skip
    option("--length", type=int, action="append", help="tokens per input, repeatable (default: 64, 128)")
    option("--rounds", type=int, default=5, help="fresh processes per model (default: %(default)s)")
    option(
        "--samples", type=int, default=30, help="timed calls per length and process (default: %(default)s)"
    )
    option("--threads", type=int, default=2, help="of the runtime (default: %(default)s)")
    option(
        "--text", type=Path, metavar="FILE",
        help="your texts, one a line: times from text to answer at their lengths (default: the golden texts)",
    )  # fmt: skip
    option("--sweep", action="store_true", help="also other threads, lengths and batches")
    option("--limits", action="store_true", help="also this machine's peaks, and where the time goes")
    option("--estimate", action="store_true", help="also a range for classes of phones: an estimate")
    option(
        "--instructions", type=Path, metavar="FILE",
        help="for --estimate: the bench.json that --target arm64 --out FOLDER wrote of these files",
    )  # fmt: skip
    option("--cores", default="big", help="adb: big, little or any (default: %(default)s)")
    option(
        "--tools", type=Path, default=Path("build/phone"),
        help="arm64, adb: where their tools are (default: %(default)s)",
    )  # fmt: skip
    option(
        "--sustained", type=float, default=0, metavar="SECONDS",
        help="also run each so long without a pause: does it slow down, does its memory grow?",
    )  # fmt: skip
    option(
        "--timeout", type=float, default=120, metavar="SECONDS",
        help="a process that takes longer is killed, and its row says so (default: %(default)s)",
    )  # fmt: skip
    option("--out", type=Path, metavar="DIR", help="also write bench.json and bench.txt there")


def report_options(verb: argparse.ArgumentParser) -> None:
    option = verb.add_argument
    option("runs", type=Path, nargs="+", help="run folders; with --against also results.json or bench.json")
    option("--against", type=Path, metavar="B", help="say what is other in it than in B, beyond noise")
    option("--fail-on-regression", action="store_true", help="exit code 1 when anything is worse than in B")


def bundle_options(verb: argparse.ArgumentParser) -> None:
    option = verb.add_argument
    option("run", type=Path, help="a run folder")
    option("--artifact", default="onnx-int8-dynamic", help="which of its artifacts (default: %(default)s)")
    option("--out", type=Path, help="folder to write; a bundle there is replaced (--for android: or a .zip)")
    option("--for", dest="device", choices=("android",), help="in the form that the Android app takes")
    option("--into", type=Path, metavar="PROJECT", help="put it into the Android project's assets")


def android_options(verb: argparse.ArgumentParser) -> None:
    works = verb.add_subparsers(dest="what", required=True, metavar="build")
    summary = "Make an APK of the sample app without Gradle, sign it with a debug key, show its size by part."
    example = "example: stillroom android build --project android_demo --fetch"
    build = works.add_parser("build", help=summary, description=summary, epilog=example)
    option = build.add_argument
    option("--project", type=Path, default=Path("android_demo"), help="Gradle project (default: %(default)s)")
    option(
        "--out", type=Path, default=Path("build/android/app.apk"), metavar="FILE",
        help="APK to write (default: %(default)s)",
    )  # fmt: skip
    option(
        "--tools", type=Path, default=Path("build/android"),
        help="where the tools and the debug key are (default: %(default)s)",
    )  # fmt: skip
    option("--fetch", action="store_true", help="first fetch the tools that are not there (400 MB)")
    option(
        "--flavour", default="onnxruntime", help="onnxruntime; executorch is Gradle's (default: %(default)s)"
    )
    # Given after build or before it: the first must not undo the second.
    option("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document instead")


def predict_options(verb: argparse.ArgumentParser) -> None:
    option = verb.add_argument
    option("bundle", type=Path, help="a bundle folder")
    option("text", help="the text")
    option("--pair", help="the second text, for models of sentence pairs")


def no_options(verb: argparse.ArgumentParser) -> None:
    pass
