"""What was found on devices, as text for people: no latency of an emulator is among it."""

from __future__ import annotations

from typing import Any

import numpy as np

from stillroom.benchmarks.tables import NOT_MEASURED, Table, number, plain


def adb_text(document: dict[str, Any]) -> str:
    """Every device's table with its notes, and what was not run."""
    parts = []
    for entry in document["devices"]:
        if entry["error"] is not None:
            parts.append(entry["error"])
            continue
        device = entry["device"]
        words = (f"{device['manufacturer']} {device['model']}", f"Android {device['android_release']}")
        parts.append(f"{', '.join(words)}, {device['abi']}; {entry['threads']} threads, {entry['cores']}")
        parts.append(plain(adb_table(entry)))
        parts.append("\n".join([*entry["notes"], *row_notes(entry)]))
    parts += [f"{skipped['name']}: {skipped['reason']}" for skipped in document["skipped"]]
    return "\n\n".join(parts)


def row_notes(entry: dict[str, Any]) -> list[str]:
    """Failures, answers that differ, and files that grew slower."""
    notes = [f"{row['name']}: {row['failure']}" for row in entry["rows"] if row["failure"]]
    for row in entry["rows"]:
        found = row["agreement"]
        if found and not found["holds"]:
            depends = (
                "" if row["portable"] else " (it is not portable: this machine may be the one that is off)"
            )
            notes.append(
                f"{row['name']} answers otherwise on this device: logits differ by "
                f"{found['max_abs_error']:.3g}, {found['allowed_error']:g} is allowed, "
                f"{100 * found['flip_rate']:.1f} % of labels flip{depends}"
            )
        for at in row["by_length"]:
            if at["slowed"]:
                notes.append(
                    f"{row['name']} grew {at['slowed']:.2f}× slower at {at['length']} tokens: throttling?"
                )
    return notes


def adb_table(entry: dict[str, Any]) -> Table:
    """One line per file and length; on an emulator the word stands where a latency would."""
    header = ("file", "tokens", "p50, ms", "p90, ms", "p99, ms", "load, ms", "first, ms", "peak RSS, MB")
    lines = []
    for row in entry["rows"]:
        answers = "not compared"
        if row["agreement"] is not None:
            answers = "as here" if row["agreement"]["holds"] else "OTHERS"
        if not row["by_length"]:
            lines.append((row["name"], row["status"], *[NOT_MEASURED] * 6, answers))
        for at in row["by_length"]:
            words = ["emulated"] * 6
            if not entry["emulated"]:
                medians = [float(np.median(row[key])) for key in ("load_samples_ms", "first_samples_ms")]
                words = [number(at["latency_ms"][key], 2) for key in ("p50", "p90", "p99")]
                words += [number(medians[0], 0), number(medians[1], 2)]
                words += [number(row["peak_rss_bytes"], 1, 1e-6)]
            lines.append((row["name"], str(at["length"]), *words, answers))
    return Table((*header, "answers"), tuple(lines), 1)
