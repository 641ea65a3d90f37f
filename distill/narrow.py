"""Students narrower than their teacher: fewer dimensions, attention heads and feed-forward neurons.

They start from what is strongest in the teacher's weights. No text is read and nothing is drawn by chance:
the same teacher gives the same student.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from stillroom.distill.layers import layer_list, student_from_teacher
from stillroom.errors import UsageError
from stillroom.families import family_of


def narrow_config(
    teacher_config: Any,
    hidden_size: int | None,
    heads: int | None,
    intermediate_size: int | None,
    layers: int,
) -> Any:
    """A copy of the teacher's config with other sizes and so many layers.

    hidden_size None: the teacher's. heads None: as many as keep the width of one head. intermediate_size
    None: what keeps the teacher's proportion to hidden_size. Raises UsageError, naming the recipe's keys, for
    sizes above the teacher's and for heads that do not divide hidden_size.
    """
    family = family_of(teacher_config.model_type)
    width, teacher_heads = int(teacher_config.hidden_size), int(teacher_config.num_attention_heads)
    inner = int(getattr(teacher_config, family.intermediate_size))
    limits = (
        ("hidden_size", hidden_size, width),
        ("heads", heads, teacher_heads),
        ("intermediate_size", intermediate_size, inner),
    )
    for key, value, most in limits:
        if value is not None and not 1 <= value <= most:
            raise UsageError(f"student.{key} {value}: expected 1 to {most}, which is the teacher's")
    narrow = width if hidden_size is None else hidden_size
    if heads is None:
        one = width // teacher_heads
        if narrow % one:
            raise UsageError(
                f"student.hidden_size {narrow}: expected a multiple of {one}, the width of one of the "
                "teacher's attention heads, or student.heads beside it"
            )
        heads = narrow // one
    if narrow % heads:
        raise UsageError(f"student.heads {heads}: expected a divisor of student.hidden_size, {narrow}")
    if intermediate_size is None:
        intermediate_size = max(1, inner * narrow // width)
    config = copy.deepcopy(teacher_config)
    config.hidden_size, config.num_attention_heads, config.num_hidden_layers = narrow, heads, layers
    setattr(config, family.intermediate_size, intermediate_size)
    return config


def narrow_student(
    teacher: Any,
    kept: tuple[int, ...],
    hidden_size: int | None = None,
    heads: int | None = None,
    intermediate_size: int | None = None,
) -> Any:
    """student_from_teacher with the sizes of narrow_config, its weights cut from the teacher's.

    The hidden dimensions are the same everywhere, since residual connections add them up; see
    hidden_dimensions. Heads and neurons are chosen layer by layer. Embeddings, LayerNorms and head are cut to
    the dimensions kept. Raises UsageError as narrow_config does.
    """
    config = narrow_config(teacher.config, hidden_size, heads, intermediate_size, len(kept))
    family = family_of(config.model_type)
    deep = student_from_teacher(teacher, kept)
    sizes = ("hidden_size", "num_attention_heads", family.intermediate_size)
    if all(getattr(config, size) == getattr(deep.config, size) for size in sizes):
        return deep
    hidden = hidden_dimensions(teacher, config.hidden_size)
    # path of a linear map -> which of its outputs and inputs stay, where those are not the hidden dimensions
    rows = {family.answer: torch.arange(config.num_labels)}
    columns: dict[str, Tensor] = {}
    for index, layer in enumerate(layer_list(deep)):
        place = f"{family.base}.{family.layers}.{index}"
        attended = _attention_dimensions(layer, config, deep.config, hidden)
        inner = _neurons(layer, config, hidden)
        rows |= {f"{place}.{path}": attended for path in (family.query, family.key, family.value)}
        rows[f"{place}.{family.up}"] = inner
        columns |= {f"{place}.{family.attention_out}": attended, f"{place}.{family.down}": inner}
    weights = {}
    for path, module in deep.named_modules():
        for name, parameter in module.named_parameters(path, recurse=False):
            tensor = parameter.detach()
            if not isinstance(module, nn.Embedding):  # which has a row for each word, position or segment
                tensor = tensor[rows.get(path, hidden)]
            weights[name] = tensor[:, columns.get(path, hidden)] if tensor.ndim == 2 else tensor
    student = type(teacher)(config)
    student.load_state_dict(weights, strict=True)
    return student.eval()


def hidden_dimensions(teacher: Any, count: int) -> Tensor:
    """Indices, rising, of the teacher's hidden dimensions that are largest on average: int64 [count].

    Every hidden state comes out of a LayerNorm, whose weight and bias bring the mean square of a dimension to
    about weight^2 + bias^2, whatever the text: the score is the sum of that over the encoder's LayerNorms.
    Minitron (https://arxiv.org/abs/2407.14679) ranks by the LayerNorms' outputs too, measured on texts.
    """
    encoder = getattr(teacher, family_of(teacher.config.model_type).base)
    norms = [module for module in encoder.modules() if isinstance(module, nn.LayerNorm)]
    squares = [one.weight.detach().double() ** 2 + one.bias.detach().double() ** 2 for one in norms]
    return _strongest(torch.stack(squares).sum(dim=0).cpu(), count)


def _attention_dimensions(layer: nn.Module, config: Any, teacher_config: Any, hidden: Tensor) -> Tensor:
    """Which outputs of query, key and value a layer keeps, head by head: int64 [hidden_size].

    A head is as strong as what it hands on: norms of value weights times those of output weights. The
    strongest heads stay, whole or, where heads are to be narrower, with their first dimensions: choosing
    these by their norms was tried and was no better. Wider heads are put together from the strongest
    dimensions of all heads, in the teacher's order.
    """
    family = family_of(config.model_type)
    value, out = _weight(layer, family.value)[:, hidden], _weight(layer, family.attention_out)[hidden]
    strength = value.norm(dim=1) * out.norm(dim=0)
    teacher_heads, heads = int(teacher_config.num_attention_heads), int(config.num_attention_heads)
    one, narrow = len(strength) // teacher_heads, len(hidden) // heads
    if narrow > one:
        return _strongest(strength, len(hidden))
    strongest_heads = _strongest(strength.view(teacher_heads, one).sum(dim=1), heads)
    return (strongest_heads[:, None] * one + torch.arange(narrow)).flatten()


def _neurons(layer: nn.Module, config: Any, hidden: Tensor) -> Tensor:
    """Which feed-forward neurons a layer keeps: int64 [intermediate_size], by norms of weights in and out."""
    family = family_of(config.model_type)
    into, out = _weight(layer, family.up)[:, hidden], _weight(layer, family.down)[hidden]
    return _strongest(into.norm(dim=1) * out.norm(dim=0), int(getattr(config, family.intermediate_size)))


def _weight(layer: nn.Module, path: str) -> Tensor:
    """In float64, so that a sum's order hardly ever decides what is strongest."""
    return layer.get_parameter(f"{path}.weight").detach().double()


def _strongest(scores: Tensor, count: int) -> Tensor:
    """Indices, rising, of the highest of scores [n]; of equal ones the first."""
    return torch.argsort(scores, descending=True, stable=True)[:count].sort().values
