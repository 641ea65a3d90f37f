"""Put a finished demo run into the docs: python docs/update_demo.py runs/demo [runs/seed-0 runs/seed-1 ...]

Copies the results and the picture to docs/demo/ and writes the tables between the markers in README.md and
docs/log.md. tests/test_docs.py checks that the tables still say what the copied results say.
"""

import re
import shutil
import sys
from pathlib import Path

from stillroom.benchmarks.report import headline, markdown_table
from stillroom.benchmarks.results import validate_results
from stillroom.benchmarks.seeds import compare_runs
from stillroom.files import read_json, write_atomic

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "docs" / "demo"


def demo_block() -> str:
    """README's table, its sentences, and where and when they were measured."""
    results = read_json(DEMO / "results.json")
    validate_results(results)
    machine = results["machine"]
    measured = (
        f"Measured by `make demo` on {machine['date'][:10]}: {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['threads']} threads, torch {machine['versions']['torch']}, onnxruntime "
        f"{machine['versions']['onnxruntime']}. Host CPU; no phone was measured."
    )
    return "\n".join(
        [markdown_table(results), "", *(f"- {line}" for line in headline(results)), "", measured]
    )


def seeds_block() -> str:
    """The log's table over several seeds."""
    return compare_runs([read_json(path) for path in sorted(DEMO.glob("seed-*.json"))])


def replace_block(path: Path, name: str, block: str) -> None:
    """Replace what stands between <!-- name:begin --> and <!-- name:end -->."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    text, count = re.subn(
        f"{begin}.*?{end}",
        lambda _: f"{begin}\n{block}\n{end}",
        path.read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
    if count != 1:
        sys.exit(f"{path} has {count} blocks {begin} ... {end}, one is needed")
    write_atomic(path, text)


def main(demo: Path, seeds: list[Path]) -> None:
    DEMO.mkdir(exist_ok=True)
    for name in ("results.json", "plot.svg"):
        shutil.copyfile(demo / "report" / name, DEMO / name)
    for number, run in enumerate(seeds):
        shutil.copyfile(run / "report" / "results.json", DEMO / f"seed-{number}.json")
    replace_block(ROOT / "README.md", "demo", demo_block())
    if list(DEMO.glob("seed-*.json")):
        replace_block(ROOT / "docs" / "log.md", "seeds", seeds_block())


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]])
