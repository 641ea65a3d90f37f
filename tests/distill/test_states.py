"""Queries, keys and values caught from running models are those of the plain arithmetic."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from stillroom.distill.layers import layer_list
from stillroom.distill.losses import relation_loss
from stillroom.distill.states import AttentionStates, attention_states
from stillroom.student import load_model

IDS = torch.arange(5, 29).reshape(3, 8)
MASK = (torch.arange(8) < torch.tensor([[8], [5], [1]])).long()
BATCH = {"input_ids": IDS, "attention_mask": MASK}
# Of each family's layer; RoBERTa's kin have BERT's names.
NAMES = {"distilbert": "attention.{}_lin", "bert": "attention.self.{}"}


@pytest.fixture(scope="module", params=["bert", "distilbert", "roberta", "xlm-roberta", "camembert"])
def model(
    request: pytest.FixtureRequest,
    make_model_folder: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    folder, family = tmp_path_factory.mktemp("model") / "model", request.param
    make_model_folder(folder, family.replace("camembert", "xlm-roberta"), ("good", "bad"), layers=3)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "model_type": family}), encoding="utf-8")
    loaded = load_model(folder)
    assert loaded.config.model_type == family
    return loaded


def by_hand(model: Any, layer: int) -> dict[str, torch.Tensor]:
    """The layer's queries, keys and values from its input, and the names of its weights in the state dict."""
    entering = model(**BATCH, output_hidden_states=True).hidden_states[layer]
    short = model.config.model_type == "distilbert"
    weights = layer_list(model)[layer].state_dict()
    found = {}
    for name in ("query", "key", "value"):
        place = NAMES["distilbert"].format(name[0]) if short else NAMES["bert"].format(name)
        found[name] = entering @ weights[f"{place}.weight"].T + weights[f"{place}.bias"]
    return found


def hooks_on(model: torch.nn.Module) -> int:
    """On linear maps: transformers leaves its own on whole layers."""
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    return sum(len(module._forward_hooks) for module in linear)


@pytest.mark.parametrize("layer", [0, 2, -1])
def test_states_are_those_of_the_plain_arithmetic(model: Any, layer: int) -> None:
    before, plain = hooks_on(model), model(**BATCH).logits
    with attention_states(model, layer) as states:
        output = model(**BATCH)
        found = states()
    assert torch.equal(output.logits, plain)
    for name, wanted in by_hand(model, layer % 3).items():
        assert torch.allclose(getattr(found, name), wanted, atol=1e-5), name
    assert hooks_on(model) == before


def test_each_pass_gives_its_own_states_once(model: Any) -> None:
    with attention_states(model, -1) as states:
        with pytest.raises(RuntimeError, match="no forward pass"):
            states()
        model(**BATCH)
        model(input_ids=IDS[:1], attention_mask=MASK[:1])
        assert states().key.shape == (1, 8, 32)
        with pytest.raises(RuntimeError, match="no forward pass"):
            states()


def test_hooks_go_also_when_something_fails(model: Any) -> None:
    before = hooks_on(model)
    with pytest.raises(ZeroDivisionError), attention_states(model, 0):
        assert hooks_on(model) == before + 3
        raise ZeroDivisionError
    with pytest.raises(IndexError), attention_states(model, 3):
        pass
    assert hooks_on(model) == before


def test_two_layers_and_two_models_at_once(model: Any) -> None:
    with attention_states(model, 0) as first, attention_states(model, 2) as last:
        model(**BATCH)
        low, high = first(), last()
    assert torch.allclose(low.value, by_hand(model, 0)["value"], atol=1e-5)
    assert torch.allclose(high.value, by_hand(model, 2)["value"], atol=1e-5)


def attention(states: AttentionStates, heads: int) -> torch.Tensor:
    query, key = (one.view(3, 8, heads, -1).transpose(1, 2) for one in (states.query, states.key))
    scores = query @ key.transpose(2, 3) / (query.shape[-1] ** 0.5)
    return scores.masked_fill(MASK[:, None, None] == 0, -torch.inf).softmax(-1)


def test_queries_and_keys_give_the_models_own_attention(model: Any) -> None:
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with attention_states(model, 1) as states, torch.no_grad():
        wanted = model(**BATCH, output_attentions=True).attentions[1]
        found = attention(states(), 4)
    model.set_attn_implementation(before)
    assert torch.allclose(found, wanted, atol=1e-5)


def test_relations_teach_the_layers_below(model: Any) -> None:
    with attention_states(model, 1) as states:
        with torch.no_grad():
            model(**BATCH)
        teacher = states()
        assert not teacher.query.requires_grad
        model(**BATCH)
        student = states()
    shifted = 1.3 * teacher.value
    relation_loss(student.value, student.value, shifted, shifted, MASK, 4).backward()
    reached = {name for name, one in model.named_parameters() if one.grad is not None and one.grad.any()}
    model.zero_grad()
    assert any("word_embeddings" in name for name in reached)
    assert any(".0." in name for name in reached) and not any(".2." in name for name in reached)


def test_through_what_accelerate_makes_of_the_model(model: Any, request: pytest.FixtureRequest) -> None:
    # Kept for the process: another test may have trained in it, in the precision its machine is quick at.
    AcceleratorState._reset_state(reset_partial_state=True)
    request.addfinalizer(lambda: AcceleratorState._reset_state(reset_partial_state=True))
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    with attention_states(model, -1) as states:
        prepared = accelerator.prepare_model(model)
        output = prepared(**BATCH)
        found = states()
        accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)
    assert output.logits.dtype == torch.float32 and found.query.dtype == torch.bfloat16
    loss = relation_loss(found.query, found.key, found.query.detach(), found.value.detach(), MASK, 4)
    assert loss.dtype == torch.float32 and loss.requires_grad and loss.isfinite()
    for name, wanted in by_hand(model, 2).items():
        assert torch.allclose(getattr(found, name).float(), wanted, atol=0.2), name


def test_through_distributed_data_parallel(model: Any, tmp_path: Path) -> None:
    wanted = by_hand(model, 2)["query"]
    torch.distributed.init_process_group(
        "gloo", init_method=(tmp_path / "meet").as_uri(), rank=0, world_size=1
    )
    try:
        with attention_states(model, -1) as states:
            wrapped = torch.nn.parallel.DistributedDataParallel(model)
            wrapped(**BATCH)
            assert torch.allclose(states().query, wanted, atol=1e-5)
    finally:
        torch.distributed.destroy_process_group()
