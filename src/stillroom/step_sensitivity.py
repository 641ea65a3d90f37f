"""What stillroom sensitivity does: a run's student, part by part in 8 bits, as a table and a plot."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from stillroom.errors import UsageError
from stillroom.files import write_atomic, write_json
from stillroom.steps import Run

FOLDER, PLOT_FILE, FACTS_FILE = "sensitivity", "sensitivity.svg", "sensitivity.json"
SATURATION_ROWS = 64  # computed pair by pair, which is slow


def sensitivity_of_run(folder: Path, rows: int) -> tuple[str, dict[str, Any]]:
    """Round each part of a run's student alone; ranges from its training rows, answers to validation rows.

    rows: of either, at most. Leaves plot and figures in folder/sensitivity. Raises UsageError for rows
    below 1 and a folder without a student.
    """
    from stillroom.benchmarks.plots import sensitivity_svg
    from stillroom.export.calibration import simulated
    from stillroom.export.options import ExportOptions
    from stillroom.export.saturation import without_vnni
    from stillroom.export.sensitivity import sensitivities
    from stillroom.export.static_int8 import Numerics
    from stillroom.observe import calibration_of
    from stillroom.step_data import encode
    from stillroom.step_export import calibration_rows
    from stillroom.student import load_student

    if rows < 1:
        raise UsageError(f"--rows {rows}: expected 1 or more")
    run, student = Run(folder), folder / "student"
    task = load_student(student).task
    options = ExportOptions(calibration=calibration_rows(run, student, rows), prefer_learned=True)
    batches = calibration_of(encode(run, student, task, "validation")[0], task.inputs, rows)
    model = simulated(student, options, Numerics())
    found = sensitivities(model, batches)
    few = batches[: max(1, len(batches) * SATURATION_ROWS // rows)]
    cut = without_vnni(model.wrapped, [(model.ranges, few)], model.numerics, model.kind)
    facts = {
        "rows": sum(len(batch[0]) for batch in batches),
        "groups": [asdict(one) for one in found],
        "without_vnni": {**asdict(cut), "rows": cut.agreement.rows},
    }
    out = folder / FOLDER
    out.mkdir(exist_ok=True)
    write_json(out / FACTS_FILE, facts)
    write_atomic(out / PLOT_FILE, sensitivity_svg(facts))
    lines = [f"{'rounded to 8 bits alone':<28}{'mean squared error':>20}{'max abs error':>15}{'flips':>9}"]
    for one in sorted(found[:-1], key=lambda one: -one.mean_squared_error) + found[-1:]:
        far = one.agreement
        lines.append(
            f"{one.group:<28}{one.mean_squared_error:>20.3g}{far.max_abs_error:>15.3g}{far.flip_rate:>9.2%}"
        )
    lines.append(f"{facts['rows']} validation rows; the worst first, everything together last")
    lines.append(
        f"on an x86 CPU without VNNI {cut.saturated / cut.dot_products:.3%} of {cut.dot_products:,} dot "
        f"products saturate, and {cut.agreement.flip_rate:.2%} of {cut.agreement.rows} labels flip"
        + ("; stillroom export --portable avoids it" if cut.saturated else "")
    )
    lines.append(f"plot: {out / PLOT_FILE}")
    return "\n".join(lines), facts
