"""The table of verify: artifacts x cases, what failed, and what nothing here could open."""

from __future__ import annotations

from typing import Any

from stillroom.step_verify import proof_table

AGREEMENT = {"max_abs_error": 0.0123, "cosine": 0.99987, "flip_rate": 0.004, "rows": 250}


def case(name: str, passed: bool = True) -> dict[str, Any]:
    return {"name": name, "agreement": AGREEMENT, "passed": passed, "worst_text": ""}


PROOFS: dict[str, dict[str, Any]] = {
    "onnx-int8-dynamic": {
        "proof": "run", "score_change": {"accuracy": -0.004, "macro_f1": 0.5},
        "cases": [case("test split, one by one"), case("padded against unpadded", passed=False)],
    },
    "coreml-fp16": {
        "proof": "interpreted on Linux, not run on Apple hardware", "score_change": {"accuracy": 0.0},
        "cases": [case("test split, one by one")],
    },
    "executorch_coreml-fp16": {"proof": "lowered, not run", "cases": []},
}  # fmt: skip


def test_the_table_of_a_run() -> None:
    head, first, failed, interpreted, how, lowered, note = proof_table(PROOFS).splitlines()
    assert head.split() == ["artifact", "case", "max", "abs", "error", "cosine", "flips", "score", "result"]
    assert first.split()[-5:] == ["0.0123", "0.99987", "0.40%", "-0.40", "ok"]
    assert failed.split()[0] == "onnx-int8-dynamic" and failed.split()[-2:] == ["0.40%", "FAILED"]
    assert interpreted.split()[-2:] == ["+0.00", "ok"]
    assert how.split(maxsplit=1) == ["coreml-fp16", "interpreted on Linux, not run on Apple hardware"]
    assert lowered.split(maxsplit=1) == ["executorch_coreml-fp16", "lowered, not run"]
    assert note.startswith("score: change against the source")
    assert len({len(line) for line in (first, interpreted)}) == 1  # columns stand below each other


def test_the_table_of_a_bundle_knows_no_score() -> None:
    proof = {key: value for key, value in PROOFS["onnx-int8-dynamic"].items() if key != "score_change"}
    head, first, failed = proof_table({"onnx-int8-dynamic": proof}).splitlines()
    assert "score" not in head and first.split()[-2:] == ["0.40%", "ok"] and failed.endswith("FAILED")
