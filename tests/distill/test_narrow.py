"""Narrow students of every family: their sizes, and that their weights are the teacher's strongest."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from stillroom.distill.layers import layer_list, student_from_teacher
from stillroom.distill.narrow import hidden_dimensions, narrow_config, narrow_student
from stillroom.errors import UsageError
from stillroom.families import FAMILIES
from stillroom.student import load_model, parameter_count

IDS = torch.arange(5, 29).reshape(3, 8)
BATCH = {"input_ids": IDS, "attention_mask": (torch.arange(8) < torch.tensor([[8], [5], [1]])).long()}
LABELS = ("good", "bad", "so-so")
ALL = (0, 1, 2)
# The tiny teachers: 3 layers, 32 wide, 4 heads of 8, 64 neurons. What of it is asked for:
SIZES = [(16, 2, 32), (16, None, None), (24, 3, 64), (16, 4, 64), (16, 1, 64), (None, 2, None),
         (None, None, 40), (8, 4, 1), (31, 1, 63)]  # fmt: skip


@pytest.fixture(scope="module", params=FAMILIES)
def teacher(
    request: pytest.FixtureRequest,
    make_model_folder: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    folder, family = tmp_path_factory.mktemp("model") / "model", request.param
    make_model_folder(folder, family.replace("camembert", "xlm-roberta"), LABELS, layers=3)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "model_type": family}), encoding="utf-8")
    loaded = load_model(folder)
    assert loaded.config.model_type == family
    return loaded


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return torch.as_tensor(model(**BATCH).logits)


@pytest.mark.parametrize("kept", [(0, 2), ALL])
def test_nothing_narrower_is_the_shallow_student(teacher: Any, kept: tuple[int, ...]) -> None:
    wanted = student_from_teacher(teacher, kept)
    for sizes in ((), (32, 4, 64), (None, 4, None), (32,)):
        found = narrow_student(teacher, kept, *sizes)
        assert found.config.to_dict() == wanted.config.to_dict()
        weights = found.state_dict()
        assert list(weights) == list(wanted.state_dict())
        assert all(torch.equal(weights[name], tensor) for name, tensor in wanted.state_dict().items())


@pytest.mark.parametrize("sizes", SIZES)
def test_sizes_are_those_asked_for(teacher: Any, sizes: tuple[int | None, ...]) -> None:
    student = narrow_student(teacher, (0, 2), *sizes)
    config, width = student.config, sizes[0] or 32
    inner = config.hidden_dim if config.model_type == "distilbert" else config.intermediate_size
    assert type(student) is type(teacher) and not student.training
    assert (config.hidden_size, config.num_hidden_layers) == (width, 2)
    assert config.num_attention_heads == (sizes[1] or width // 8)
    assert inner == (sizes[2] or 2 * width)
    assert parameter_count(student) == parameter_count(type(teacher)(config))
    assert logits(student).shape == (3, 3) and logits(student).isfinite().all()
    assert (teacher.config.hidden_size, teacher.config.num_attention_heads) == (32, 4)


def test_a_saved_narrow_student_is_an_ordinary_model(teacher: Any, tmp_path: Path) -> None:
    student = narrow_student(teacher, (0, 2), 16)
    student.save_pretrained(tmp_path)
    assert torch.equal(logits(load_model(tmp_path)), logits(student))


def test_no_chance_and_no_shared_weights(teacher: Any) -> None:
    before = copy.deepcopy(teacher.state_dict())
    torch.manual_seed(1)
    one = narrow_student(teacher, (0, 2), 16)
    torch.manual_seed(2)
    other = narrow_student(teacher, (0, 2), 16)
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


def strongest(scores: list[float], count: int) -> list[int]:
    return sorted(sorted(range(len(scores)), key=lambda index: -scores[index])[:count])


def test_hidden_dimensions_are_the_largest(teacher: Any) -> None:
    scores = np.zeros(32)
    for name, tensor in teacher.state_dict().items():
        if "LayerNorm" in name or "layer_norm" in name:
            scores += tensor.double().numpy() ** 2
    for count in (1, 16, 31, 32):
        assert hidden_dimensions(teacher, count).tolist() == strongest(list(scores), count)


# The names as Hugging Face has them, written out once more: query, key, value, output, up, down.
NAMES = {
    "distilbert": ("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin",
                   "ffn.lin1", "ffn.lin2"),
    "bert": ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
             "intermediate.dense", "output.dense"),
}  # fmt: skip


@pytest.mark.parametrize("sizes", [(16, 2, 24), (16, 4, 24), (16, 1, 24)])
def test_weights_are_the_teachers_strongest(teacher: Any, sizes: tuple[int, int, int]) -> None:
    student = narrow_student(teacher, (0, 2), *sizes)
    hidden, checked = hidden_dimensions(teacher, 16).numpy(), set()
    names = NAMES["distilbert" if teacher.config.model_type == "distilbert" else "bert"]
    for position, index in enumerate((0, 2)):
        mine, theirs = layer_list(student)[position].state_dict(), layer_list(teacher)[index].state_dict()
        theirs = {name: tensor.numpy() for name, tensor in theirs.items()}
        value, out = theirs[f"{names[2]}.weight"][:, hidden], theirs[f"{names[3]}.weight"][hidden]
        strength = [float(np.linalg.norm(value[row]) * np.linalg.norm(out[:, row])) for row in range(32)]
        heads = strongest([sum(strength[8 * head : 8 * head + 8]) for head in range(4)], sizes[1])
        attended = {  # heads as wide as the teacher's, half as wide, and twice as wide
            2: [8 * head + one for head in heads for one in range(8)],
            4: [8 * head + one for head in range(4) for one in range(4)],
            1: strongest(strength, 16),
        }[sizes[1]]
        up, down = theirs[f"{names[4]}.weight"][:, hidden], theirs[f"{names[5]}.weight"][hidden]
        neurons = strongest(
            [float(np.linalg.norm(up[row]) * np.linalg.norm(down[:, row])) for row in range(64)], 24
        )
        rows = {**dict.fromkeys(names[:3], attended), names[4]: neurons}
        columns = {names[3]: attended, names[5]: neurons}
        for name, tensor in mine.items():
            place = name.rpartition(".")[0]
            wanted = theirs[name][rows.get(place, hidden)]
            if wanted.ndim == 2:
                wanted = wanted[:, columns.get(place, hidden)]
            assert np.array_equal(tensor.numpy(), wanted), name
            checked.add(place)
    assert len(checked) == 8  # six linear maps and two LayerNorms


def test_embeddings_and_head_are_cut_to_the_hidden_dimensions(teacher: Any) -> None:
    hidden, before = hidden_dimensions(teacher, 16).numpy(), teacher.state_dict()
    after = narrow_student(teacher, (0, 2), 16).state_dict()
    outside = [name for name in after if ".layer." not in name]
    for name in outside:
        found, whole = after[name].numpy(), before[name].numpy()
        # A row for each word, position, segment or label stays, and so does a number for each label.
        every = name.endswith("_embeddings.weight") or len(whole) == 3
        rows = np.arange(len(whole)) if every else hidden
        wanted = whole[rows] if whole.ndim == 1 else whole[np.ix_(rows, hidden)]
        assert np.array_equal(found, wanted), name
    assert len(outside) >= 8


def test_neurons_that_do_nothing_are_the_ones_to_go(teacher: Any) -> None:
    dead = copy.deepcopy(teacher)
    down = "ffn.lin2" if teacher.config.model_type == "distilbert" else "output.dense"
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer in layer_list(dead):
            layer.get_parameter(f"{down}.weight")[:, torch.randperm(64, generator=generator)[:40]] = 0.0
    found = logits(narrow_student(dead, ALL, intermediate_size=24))
    assert torch.allclose(found, logits(dead), atol=1e-4)
    assert not torch.allclose(
        logits(narrow_student(dead, ALL, intermediate_size=20)), logits(dead), atol=1e-4
    )


def test_fewer_heads_of_the_same_width_in_all_have_all_weights(teacher: Any) -> None:
    weights = narrow_student(teacher, ALL, heads=2).state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in teacher.state_dict().items())


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((33, None, None), "student.hidden_size 33: expected 1 to 32"),
        ((0, None, None), "student.hidden_size 0: expected 1 to 32"),
        ((None, 5, None), "student.heads 5: expected 1 to 4"),
        ((16, 8, None), "student.heads 8: expected 1 to 4"),
        ((None, None, 65), "student.intermediate_size 65: expected 1 to 64"),
        ((None, None, 0), "student.intermediate_size 0: expected 1 to 64"),
        ((16, 3, None), "student.heads 3: expected a divisor of student.hidden_size, 16"),
        ((20, None, None), "student.hidden_size 20: expected a multiple of 8.* or student.heads beside it"),
    ],
)
def test_sizes_that_cannot_be(
    teacher: Any, sizes: tuple[int | None, int | None, int | None], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        narrow_config(teacher.config, *sizes, layers=2)
    with pytest.raises(UsageError, match=message):
        narrow_student(teacher, (0, 2), *sizes)


def test_the_sizes_of_a_published_model() -> None:
    config = narrow_config(transformers.BertConfig(), 384, None, None, 6)
    assert (config.num_attention_heads, config.intermediate_size) == (6, 1536)
    config = narrow_config(transformers.DistilBertConfig(), 312, 12, 1200, 4)  # TinyBERT's
    assert (config.dim, config.n_heads, config.hidden_dim, config.n_layers) == (312, 12, 1200, 4)
