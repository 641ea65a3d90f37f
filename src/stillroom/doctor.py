"""Which cells of targets x schemes work on this machine, and what is missing for the others."""

from __future__ import annotations

import importlib.util
from typing import Any

from stillroom.export.targets import TARGETS
from stillroom.extras import EXTRA_OF, version_of
from stillroom.scheme import SCHEMES

WATCHED = (*EXTRA_OF, "numpy")


def examine() -> tuple[str, dict[str, Any]]:
    """The table for people and the same as JSON. Looks for packages without importing them."""
    states = {name: _state(name) for name in TARGETS}
    rows = [
        {"format": f"{name}-{scheme}", "state": states[name]}
        for name, target in TARGETS.items()
        for scheme in target.schemes
    ]
    width, column = max(map(len, SCHEMES)), max(map(len, TARGETS))
    lines = [f"{'':<{width}}  {'  '.join(f'{name:<{column}}' for name in TARGETS)}"]
    for scheme in SCHEMES:
        cells = [_cell(states[name]) if scheme in target.schemes else "-" for name, target in TARGETS.items()]
        lines.append(f"{scheme:<{width}}  {'  '.join(f'{cell:<{column}}' for cell in cells)}")
    lines.append("")
    for name, target in TARGETS.items():
        note = f"; {target.note}" if target.note else ""
        lines.append(f"{name:<{column}} {states[name]}{note}")
    versions = {name: version_of(name) for name in WATCHED}
    lines += ["", *(f"{name:<24} {version or 'not installed'}" for name, version in versions.items())]
    return "\n".join(lines), {"formats": rows, "versions": versions}


def _state(name: str) -> str:
    """ "works", "converts only: ..." or "missing PACKAGE: pip line"."""
    target = TARGETS[name]
    missing = [module for module in target.needs if importlib.util.find_spec(module) is None]
    if missing:
        return f'missing {missing[0]}: pip install "stillroom[{EXTRA_OF[missing[0]]}]"'
    return "works" if target.proof == "run" else f"converts only: {target.proof}"


def _cell(state: str) -> str:
    return (
        state.partition(":")[0].partition(" ")[0] if state.startswith("missing") else state.partition(":")[0]
    )
