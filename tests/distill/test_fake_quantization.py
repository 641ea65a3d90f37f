"""Training in 8 bits: what is rounded is what the export rounds, slopes pass, and nothing is left behind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stillroom.distill.fake_quantization import (
    fake_int4,
    fake_quantized,
    learned_ranges,
    rounded_blocks,
    rounded_in,
    rounded_rows,
)
from stillroom.export.encoder import ExportModel
from stillroom.export.int8_embedding import Int8Embedding
from stillroom.export.static_int8 import Numerics, use_static_int8
from stillroom.int4 import best_scales
from stillroom.observe import linear_maps, seen_values
from stillroom.ranges import RULES, LinearRanges, Ranges

BATCH = (np.array([[2, 7, 9, 30, 3]]), np.ones((1, 5), dtype=np.int64))


def model_of(family: str) -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "num_labels": 3, "max_position_embeddings": 20}
    if family == "distilbert":
        config = transformers.DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=32, **sizes)
        model = transformers.DistilBertForSequenceClassification(config)
    else:
        config = transformers.BertConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, **sizes
        )
        model = transformers.BertForSequenceClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)  # far from the zeros it starts with, or rounding would not show
    found: torch.nn.Module = model.eval()
    return found


def ranges_of(model: torch.nn.Module) -> Ranges:
    return {
        name: LinearRanges(RULES["minmax"](given_), RULES["minmax"](result))
        for name, (given_, result) in seen_values(model, [BATCH]).items()
    }


def answers(model: torch.nn.Module) -> torch.Tensor:
    found = model(*map(torch.from_numpy, BATCH))
    return torch.as_tensor(getattr(found, "logits", found))


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_training_rounds_what_the_export_rounds(family: str) -> None:
    model = model_of(family)
    ranges = ranges_of(model)
    with torch.no_grad():
        plain = answers(model)
        with fake_quantized(model, ranges):
            in_training = answers(model)
        wrapped = ExportModel(model, ("input_ids", "attention_mask"), 20)
        names = {id(module): name for name, module in model.named_modules()}
        of_wrapped = {name: ranges[names[id(module)]] for name, module in linear_maps(wrapped).items()}
        use_static_int8(wrapped, of_wrapped, Numerics(outputs=True))
        wrapped.words = Int8Embedding(wrapped.words.weight)
        exported = answers(wrapped)
    assert (plain - in_training).abs().max() > 1e-3
    step = max(ranges[name].output[1] - ranges[name].output[0] for name in ranges) / 255
    assert (in_training - exported).abs().max() < 1.01 * step  # one step of the last map's output


def test_nothing_is_left_behind() -> None:
    model = model_of("bert")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        plain = answers(model)
        with pytest.raises(ZeroDivisionError), fake_quantized(model, ranges_of(model)):
            assert {name for name, _ in model.named_parameters()} > set(before) - {
                name for name in before if name.endswith("weight")
            }
            raise ZeroDivisionError
        torch.testing.assert_close(answers(model), plain, rtol=0, atol=0)
    after = model.state_dict()
    assert sorted(after) == sorted(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_weights_embeddings_and_ranges_learn() -> None:
    model = model_of("bert")
    with fake_quantized(model, ranges_of(model)):
        start = learned_ranges(model)
        answers(model).square().sum().backward()  # type: ignore[no-untyped-call]
        without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
        assert without == []
        with torch.no_grad():
            for module in linear_maps(model).values():
                assert isinstance(module.ends, torch.Tensor)
                module.ends -= 0.1
        moved = learned_ranges(model)
    for name, ranges in moved.items():
        assert ranges.input[1] == pytest.approx(start[name].input[1] * np.exp(-0.1), rel=1e-5)
        assert ranges.output[0] == pytest.approx(start[name].output[0] * np.exp(-0.1), rel=1e-5)


@given(
    arrays(np.float32, 20, elements=st.floats(-50, 50, width=32)), st.floats(-40, 0), st.floats(0, 40),
)  # fmt: skip
def test_rounding_and_its_slope_are_torchs(values: np.ndarray, low: float, high: float) -> None:
    if high - low < 1e-2:
        return
    mine, theirs = (torch.from_numpy(values).requires_grad_() for _ in range(2))
    scale = (high - low) / 255
    zero = round(-low / scale)
    found = rounded_in(mine, torch.tensor(low), torch.tensor(high))
    wanted = torch.fake_quantize_per_tensor_affine(theirs, scale, zero, 0, 255)
    difference = (found - wanted).detach().abs().numpy()
    assert difference.max() <= 1.01 * scale and (difference > 1e-3 * scale).mean() <= 0.1
    found.sum().backward()  # type: ignore[no-untyped-call]
    wanted.sum().backward()  # type: ignore[no-untyped-call]
    inside = (values / scale + zero > 0.51) & (values / scale + zero < 254.49)
    outside = (values / scale + zero < -0.51) | (values / scale + zero > 255.51)
    assert mine.grad is not None and theirs.grad is not None
    for slopes in (mine.grad.numpy(), theirs.grad.numpy()):
        assert np.allclose(slopes[inside], 1) and np.allclose(slopes[outside], 0)


def test_values_that_are_cut_off_pull_the_end() -> None:
    values = torch.tensor([5.0, -3.0, 0.2])
    low, high = torch.tensor(-1.0, requires_grad=True), torch.tensor(2.0, requires_grad=True)
    (rounded_in(values, low, high) - values).square().sum().backward()  # type: ignore[no-untyped-call]
    assert high.grad is not None and low.grad is not None
    assert high.grad < 0 and low.grad > 0  # descent widens the range on both sides


@given(arrays(np.float32, (4, 6), elements=st.floats(-10, 10, width=32)))
def test_rows_are_rounded_as_embeddings_are_stored(rows: np.ndarray) -> None:
    table = Int8Embedding(torch.from_numpy(rows))
    found = rounded_rows(torch.from_numpy(rows))
    scale = np.abs(rows).max(axis=1, keepdims=True) / 127
    assert np.abs(found.numpy() - table(torch.arange(4)).numpy()).max() <= 1e-5 + 1.01 * scale.max() * (
        np.abs(rows / np.maximum(scale, 1e-9) % 1 - 0.5).min() < 1e-3
    )


def test_four_bits_learn_and_stay() -> None:
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48, vocab_size=50
    )
    model: Any = transformers.BertForSequenceClassification(config).eval()
    names = set(model.state_dict())
    down = model.bert.encoder.layer[0].output.dense  # from 48, which is no multiple of a block
    before, scales = down.weight.clone(), best_scales(model.bert.pooler.dense.weight.detach(), signed=False)
    with fake_int4(model):
        answers(model).square().sum().backward()  # type: ignore[no-untyped-call]
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.01 * parameter.grad.sign()
            in_training = answers(model)
    with torch.no_grad():
        assert torch.equal(answers(model), in_training)
        assert set(model.state_dict()) == names
        pooler = model.bert.pooler.dense.weight
        assert torch.equal(rounded_blocks(pooler, scales), pooler) and not torch.equal(down.weight, before)
        words = model.bert.embeddings.word_embeddings.weight.reshape(-1, 32)
        assert max(len(row.unique()) for row in words) <= 16 < len(before[0].unique())
