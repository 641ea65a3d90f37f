"""What of an artifact would hurt on a phone, each with its remedy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stillroom.artifact import Artifact
from stillroom.export import lint_facts
from stillroom.export.lint_facts import Facts
from stillroom.export.native_library import misaligned

LARGE_FILE_BYTES = 100e6  # what Google Play warns about on a mobile network, and many users refuse
ANE_LIMIT = 16384  # largest dimension of a tensor that Apple's Neural Engine takes
FP16_LARGEST = 65504.0
MEMORY_FACTOR = 3.0  # of the file's size, at load: more means that weights are unpacked and kept twice
# What first came with an onnxruntime: each file opened by each of nine releases, 1.16.3 to 1.24.1
# (docs/experiments/older_runtimes.py, docs/log.md).
ONNXRUNTIME_OF_OPSET = {23: (1, 23)}
ONNXRUNTIME_OF = {"Attention": (1, 23), "QuantizeLinear": (1, 24)}


@dataclass(frozen=True)
class Finding:
    """what: one line. remedy: what to do about it, or why nothing is to be done."""

    what: str
    remedy: str


def lint(artifact: Artifact, libraries: Sequence[Path] = ()) -> tuple[Finding, ...]:
    """Look an artifact's file over, and native libraries of the app that will open it.

    Measures the memory it takes to load in a process of its own. Raises UsageError for what is no library.
    """
    facts = FACTS_OF[artifact.target](artifact)
    facts = replace(facts, load_bytes=load_bytes(artifact))
    findings = [finding for rule in RULES if (finding := rule(artifact, facts)) is not None]
    for library in libraries:
        if names := misaligned(library):
            findings.append(
                Finding(
                    f"{library.name}: {', '.join(names)} is not aligned to 16 KB pages",
                    "a newer release of that library; devices with such pages do not load this one",
                )
            )
    return tuple(findings)


def fp32_embeddings(artifact: Artifact, facts: Facts) -> Finding | None:
    if not facts.fp32_embeddings:
        return None
    return Finding(
        "word embeddings are fp32, most of a small model's file",
        "an 8-bit scheme, or distill with student.vocabulary=trim",
    )


def attention_not_fused(artifact: Artifact, facts: Facts) -> Finding | None:
    if facts.attention_layers is None or facts.fused_attention == facts.attention_layers:
        return None
    return Finding(
        f"attention is fused in {facts.fused_attention} of {facts.attention_layers} layers",
        "export with the native Attention operator, which is the default",
    )


def not_delegated(artifact: Artifact, facts: Facts) -> Finding | None:
    if not facts.left:
        return None
    names = ", ".join(f"{count} {name}" for name, count in facts.left.items())
    return Finding(
        f"not delegated, {1 - facts.delegated_flop_share:.1%} of the arithmetic: {names}",
        "none needed while the matrix products are delegated; a fixed --length leaves fewer",
    )


def int64_inputs(artifact: Artifact, facts: Facts) -> Finding | None:
    if not facts.int64_inputs:
        return None
    return Finding(
        "inputs are int64", "pass long[] from Kotlin, Int64 from Swift; int[] is refused or misread"
    )


def too_wide_for_ane(artifact: Artifact, facts: Facts) -> Finding | None:
    if facts.largest_dimension <= ANE_LIMIT or artifact.target != "coreml":
        return None
    return Finding(
        f"a dimension of {facts.largest_dimension}: over {ANE_LIMIT}, the Neural Engine leaves it to the CPU",
        f"distill with student.vocabulary={ANE_LIMIT} or fewer",
    )


def mask_beyond_fp16(artifact: Artifact, facts: Facts) -> Finding | None:
    if facts.most_negative >= -FP16_LARGEST:
        return None
    return Finding(
        f"a mask constant of {facts.most_negative:.3g} is infinite in fp16, and not a number soon after",
        "export with stillroom, whose masks are finite",
    )


def dynamic_lengths(artifact: Artifact, facts: Facts) -> Finding | None:
    if not facts.dynamic:
        return None
    return Finding(
        "any input length: memory is planned at run time, and accelerators may refuse the file",
        "--length TOKENS where your texts are of one length; else nothing, the CPU profits from short inputs",
    )


def needs_a_new_runtime(artifact: Artifact, facts: Facts) -> Finding | None:
    needed = [(ONNXRUNTIME_OF[name], name) for name in facts.operators if name in ONNXRUNTIME_OF]
    if facts.opset in ONNXRUNTIME_OF_OPSET:
        needed.append((ONNXRUNTIME_OF_OPSET[facts.opset], ""))
    if not needed:
        return None
    (major, minor), _ = max(needed)
    return Finding(
        f"opset {facts.opset} with {', '.join(sorted(facts.operators))}: onnxruntime {major}.{minor} or "
        f"newer, {major}.{minor - 1} refuses it",
        f"onnxruntime-android {artifact.tool_versions['onnxruntime']}, which it was proved with",
    )


def made_for_a_runtime(artifact: Artifact, facts: Facts) -> Finding | None:
    if not artifact.target.startswith("executorch"):
        return None
    version = artifact.tool_versions["executorch"]
    return Finding(
        f"made for ExecuTorch {version}: an older runtime may refuse it, or its operators",
        f"org.pytorch:executorch-android:{version}, or the Swift package of {version}",
    )


def memory_at_load(artifact: Artifact, facts: Facts) -> Finding | None:
    if facts.load_bytes <= MEMORY_FACTOR * artifact.size_bytes:
        return None
    return Finding(
        f"loading takes {facts.load_bytes / 1e6:.0f} MB at its peak, the file has "
        f"{artifact.size_bytes / 1e6:.0f}",
        "load once, early, off the main thread; or a scheme that keeps its weights packed",
    )


def large_file(artifact: Artifact, facts: Facts) -> Finding | None:
    if artifact.size_bytes <= LARGE_FILE_BYTES:
        return None
    return Finding(
        f"{artifact.size_bytes / 1e6:.0f} MB: over {LARGE_FILE_BYTES / 1e6:.0f}, people leave the download",
        "fewer layers, fewer bits, student.vocabulary=trim; or deliver it after the install",
    )


RULES: tuple[Callable[[Artifact, Facts], Finding | None], ...] = (
    fp32_embeddings, attention_not_fused, not_delegated, int64_inputs, too_wide_for_ane, mask_beyond_fp16,
    dynamic_lengths, needs_a_new_runtime, made_for_a_runtime, memory_at_load, large_file,
)  # fmt: skip
FACTS_OF: dict[str, Callable[[Artifact], Facts]] = {
    "onnx": lint_facts.of_onnx,
    "ort": lint_facts.of_ort,
    "torchscript": lint_facts.of_torchscript,
    "executorch": lint_facts.of_executorch,
    "executorch_coreml": lint_facts.of_executorch,
    "coreml": lint_facts.of_coreml,
}
MEASURE_LOAD = """
import sys
from pathlib import Path
from stillroom.export.targets import import_runtime, load_predictor
target, folder = sys.argv[1:]
import_runtime(target)
def bytes_of(name):
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
before = bytes_of("VmRSS")
predict = load_predictor(target, Path(folder), 1)
print(bytes_of("VmHWM") - before)
"""


def load_bytes(artifact: Artifact) -> int:
    """Peak memory that opening the file adds to its runtime, in a fresh process.

    0 where it cannot be told: but on Linux, and of an interpreter, whose memory says nothing.
    """
    if artifact.proof != "run" or sys.platform != "linux":
        return 0
    command = [sys.executable, "-c", MEASURE_LOAD, artifact.target, str(artifact.folder)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def in_words(findings: tuple[Finding, ...]) -> str:
    """One finding a line, its remedy below."""
    return "\n".join(f"  {finding.what}\n      -> {finding.remedy}" for finding in findings)
