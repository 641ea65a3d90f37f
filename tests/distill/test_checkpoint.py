"""Checkpoints: what is read back is what was written, and damage costs one checkpoint, not the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from stillroom.distill import checkpoint
from stillroom.distill.checkpoint import Progress, load_checkpoint, save_checkpoint

KEY = "a run"


def small_model(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    model[0].weight.requires_grad = False
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return model, torch.optim.AdamW(trainable, lr=0.01)


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
    for _ in range(count):
        model(torch.randn(3, 4)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def same(model: nn.Module, other: nn.Module, names: set[str] | None = None) -> bool:
    weights = other.state_dict()
    return all(
        torch.equal(value, weights[name])
        for name, value in model.state_dict().items()
        if names is None or name in names
    )


def saved_at(folder: Path, *counts: int, key: str = KEY) -> dict[int, nn.Module]:
    """One run with a checkpoint after each of these steps -> the model as it was at each."""
    model, optimizer = small_model(0)
    found, done = {}, 0
    for count in counts:
        steps(model, optimizer, count - done)
        done = count
        save_checkpoint(folder, model, optimizer, Progress(count, (0.5,), count / 8), key, 2)
        found[count], _ = small_model(0)
        found[count].load_state_dict(model.state_dict())
    return found


def test_round_trip(tmp_path: Path) -> None:
    model, optimizer = small_model(0)
    steps(model, optimizer, 3)
    progress = Progress(3, (0.75, 0.1 + 0.2), 1 / 3)
    save_checkpoint(tmp_path, model, optimizer, progress, KEY, 2)
    torch.manual_seed(2)
    steps(model, optimizer, 4)

    other, its_optimizer = small_model(1)
    assert not same(model, other)
    with torch.no_grad():
        other[0].weight.copy_(model[0].weight)  # frozen: comes from the model itself, not the checkpoint
    assert load_checkpoint(tmp_path, other, its_optimizer, KEY) == progress
    # The same steps from here must use the same moments and step count.
    torch.manual_seed(2)
    steps(other, its_optimizer, 4)
    assert same(model, other)


def test_frozen_weights_are_not_written(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    saved_at(tmp_path, 1)
    names = load_file(tmp_path / "step-00000001" / "state.safetensors").keys()
    assert "weight:0.weight" not in names
    assert {
        "weight:0.bias",
        "exp_avg:2.weight",
        "exp_avg_sq:2.weight",
        "step:2.weight",
    } <= names


def test_nothing_there(tmp_path: Path) -> None:
    model, optimizer = small_model(0)
    assert load_checkpoint(tmp_path / "absent", model, optimizer, KEY) is None
    assert not optimizer.state


def test_only_the_last_two_are_kept(tmp_path: Path) -> None:
    saved_at(tmp_path, 1, 2, 9, 10, 100)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000100"]


def test_the_newest_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    was = saved_at(tmp_path, 9, 10)
    model, optimizer = small_model(0)
    found = load_checkpoint(tmp_path, model, optimizer, KEY)
    assert found == Progress(10, (0.5,), 1.25)
    assert same(was[10], model)
    assert "damaged" not in capsys.readouterr().err


def damage(folder: Path, how: str) -> None:
    state, facts = folder / "state.safetensors", folder / "checkpoint.json"
    content = state.read_bytes()
    if how == "one byte":
        state.write_bytes(content[:-7] + bytes([content[-7] ^ 1]) + content[-6:])
    elif how == "truncated":
        state.write_bytes(content[: len(content) // 2])
    elif how == "no weights":
        state.unlink()
    elif how == "no facts":
        facts.unlink()
    elif how == "facts not JSON":
        facts.write_text(facts.read_text("utf-8")[:40], encoding="utf-8")
    elif how == "facts of another kind":
        facts.write_text("[1, 2]", encoding="utf-8")
    else:
        kept = json.loads(facts.read_text("utf-8"))
        del kept["sha256"]
        facts.write_text(json.dumps(kept), encoding="utf-8")


@pytest.mark.parametrize(
    "how",
    [
        "one byte",
        "truncated",
        "no weights",
        "no facts",
        "facts not JSON",
        "facts of another kind",
        "no checksum",
    ],
)
def test_a_damaged_one_costs_one_checkpoint(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    was = saved_at(tmp_path, 3, 6)
    damage(tmp_path / "step-00000006", how)
    model, optimizer = small_model(0)
    found = load_checkpoint(tmp_path, model, optimizer, KEY)
    assert found is not None and found.step == 3
    assert same(was[3], model)
    said = capsys.readouterr()
    assert "step-00000006 is damaged" in said.err and "the one before" in said.err
    assert not said.out


def test_when_all_are_damaged_the_run_starts_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved_at(tmp_path, 3, 6)
    for folder in tmp_path.iterdir():
        damage(folder, "truncated")
    model, optimizer = small_model(0)
    fresh, _ = small_model(0)
    assert load_checkpoint(tmp_path, model, optimizer, KEY) is None
    assert same(fresh, model) and not optimizer.state
    assert capsys.readouterr().err.count("is damaged") == 2


def test_another_run_s_checkpoint_is_ignored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved_at(tmp_path, 3, key="another run")
    model, optimizer = small_model(0)
    fresh, _ = small_model(0)
    assert load_checkpoint(tmp_path, model, optimizer, KEY) is None
    assert same(fresh, model) and not optimizer.state
    assert "damaged" not in capsys.readouterr().err


def test_another_run_s_checkpoints_do_not_push_this_run_s_out(tmp_path: Path) -> None:
    # After a change of the recipe the folder still holds the old run's last checkpoints, of later steps.
    saved_at(tmp_path, 90, 100, key="another run")
    was = saved_at(tmp_path, 3, 6)
    model, optimizer = small_model(0)
    found = load_checkpoint(tmp_path, model, optimizer, KEY)
    assert found is not None and found.step == 6
    assert same(was[6], model)
    damage(tmp_path / "step-00000006", "truncated")
    found = load_checkpoint(tmp_path, model, optimizer, KEY)
    assert found is not None and found.step == 3


def test_a_crash_while_saving_keeps_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    was = saved_at(tmp_path, 3)
    model, optimizer = small_model(0)
    load_checkpoint(tmp_path, model, optimizer, KEY)
    steps(model, optimizer, 1)

    def full(tensors: dict[str, torch.Tensor], path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, model, optimizer, Progress(4), KEY, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]
    found = load_checkpoint(tmp_path, model, optimizer, KEY)
    assert found is not None and found.step == 3
    assert same(was[3], model)
    assert "damaged" not in capsys.readouterr().err
