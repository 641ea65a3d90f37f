"""Which cells of targets x schemes work on this machine, and what is missing for the others."""

from __future__ import annotations

import importlib.util
from typing import Any

from stillroom.export.targets import TARGETS
from stillroom.extras import EXTRA_OF, version_of

WATCHED = (*EXTRA_OF, "numpy")


def examine() -> tuple[str, dict[str, Any]]:
    """The table for people and the same as JSON. Looks for packages without importing them."""
    rows = []
    for target in TARGETS.values():
        missing = [module for module in target.needs if importlib.util.find_spec(module) is None]
        for scheme in target.schemes:
            state = (
                "works"
                if not missing
                else f'missing {missing[0]}: pip install "stillroom[{EXTRA_OF[missing[0]]}]"'
            )
            rows.append({"format": f"{target.name}-{scheme}", "state": state})
    versions = {name: version_of(name) for name in WATCHED}
    lines = [f"{row['format']:<24} {row['state']}" for row in rows]
    lines += ["", *(f"{name:<24} {version or 'not installed'}" for name, version in versions.items())]
    return "\n".join(lines), {"formats": rows, "versions": versions}
