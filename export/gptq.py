"""Rounding that knows what its errors do to the answers: GPTQ, from both sides of a linear map.

An error E [out, in] of a weight moves the logits, squared and summed over calibration text, by about
trace(G E H E'): H [in, in] sums x x' over what goes in, each x weighted by how much its token matters; G
[out, out] sums g g' over the gradients of the logits at what comes out (Kronecker factors of the curvature,
https://arxiv.org/abs/1503.05671). GPTQ (https://arxiv.org/abs/2210.17323) rounds input by input and lets the
inputs not yet rounded make up for the error, as H says; the same is done here for the outputs, as G says,
in the manner of https://arxiv.org/abs/2505.22988. A word embedding has no H, and its G takes the
place of H: the dimensions of a row make up for one another.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stillroom.observe import Batch
from stillroom.progress import progress_bar

DAMPING = 0.1  # of the mean of a diagonal, added to it: less fits the calibration text, not the next one
DRAWS = 2  # random directions in which the logits are followed back, for each batch
COLUMNS_AT_ONCE = 64  # whose errors are handed on together
ROW_BLOCKS = 16  # outputs are rounded in so many groups; twice as many gain nothing that shows (docs/log.md)

ToGrid = Callable[[Tensor, int], Tensor]  # values [rows] for one column -> the nearest that can be stored
Grid = Callable[[Tensor], ToGrid]  # rows of a weight, int64 -> the above for these


@dataclass(frozen=True)
class Curvature:
    """Sums over calibration text: inputs [in, in], None for an embedding; outputs [out, out]; float32."""

    inputs: Tensor | None
    outputs: Tensor

    def add(self, inputs: Tensor, gradients: Tensor) -> None:
        """inputs [tokens, in], of an embedding anything; gradients [tokens, out]."""
        self.outputs.addmm_(gradients.T, gradients)
        if self.inputs is not None:
            weights = gradients.square().sum(dim=1, keepdim=True)
            self.inputs.addmm_((inputs * weights).T, inputs)


def _nothing_seen(module: Any) -> Curvature:
    if isinstance(module, nn.Linear):
        sides = (module.in_features, module.out_features)
        return Curvature(*(torch.zeros(side, side) for side in sides))
    side = module.weight.shape[1]
    return Curvature(None, torch.zeros(side, side))


def curvatures(wrapped: Any, batches: Sequence[Batch], names: Collection[str]) -> dict[str, Curvature]:
    """Curvatures of linear maps and the word embedding ("words") of an ExportModel, by name.

    Memory does not grow with the text: two square matrices a map.
    """
    found = {name: _nothing_seen(wrapped.get_submodule(name)) for name in names}
    random = torch.Generator().manual_seed(0)

    def watch(name: str) -> Any:
        def hook(module: nn.Module, given: tuple[Tensor, ...], result: Any) -> None:
            states = given[0].detach().reshape(-1, given[0].shape[-1])
            result.register_hook(
                lambda gradients: found[name].add(states, gradients.reshape(-1, gradients.shape[-1]))
            )

        return hook

    wrapped.requires_grad_(False)
    hooks = [wrapped.words.register_forward_hook(lambda _, ids, states: states.detach().requires_grad_())]
    hooks += [wrapped.get_submodule(name).register_forward_hook(watch(name)) for name in names]
    try:
        with progress_bar(len(batches), "curvature", "batch") as bar:
            for batch in batches:
                logits = wrapped(*map(torch.from_numpy, batch))
                for draw in range(DRAWS):
                    direction = torch.randn(logits.shape, generator=random)
                    logits.backward(direction, retain_graph=draw < DRAWS - 1)
                bar.update(1)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def rounded(weight: Tensor, inputs: Tensor, outputs: Tensor | None, grid: Grid) -> Tensor:
    """weight [out, in] on a grid. inputs, outputs: H and G of the module's docstring; no G: rows alone."""
    order, root = ordered_root(inputs)
    if outputs is None:
        return _row_by_row(weight, order, root, grid(torch.arange(len(weight))))
    rows, row_root = ordered_root(outputs)
    wanted, found, begin = weight[rows].clone(), torch.empty_like(weight), 0
    for chosen in rows.chunk(ROW_BLOCKS):
        end = begin + len(chosen)
        near = _row_by_row(wanted[begin:end], order, root, grid(chosen))
        found[chosen] = near
        own, later = row_root[begin:end, begin:end], row_root[begin:end, end:]
        errors = torch.linalg.solve_triangular(own.T, wanted[begin:end] - near, upper=False)
        wanted[end:] -= later.T @ errors
        begin = end
    return found


def ordered_root(curvature: Tensor) -> tuple[Tensor, Tensor]:
    """The order in which to round, what matters most first, and U in it: U'U is the inverse, damped."""
    exact = curvature.double()
    diagonal = exact.diagonal()
    damping = DAMPING * float(diagonal.mean()) or 1.0
    order = torch.argsort(diagonal, descending=True)
    damped = exact[order][:, order] + damping * torch.eye(len(exact), dtype=torch.float64)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return order, torch.linalg.cholesky(inverse, upper=True).float()


def _row_by_row(weight: Tensor, order: Tensor, root: Tensor, to_grid: ToGrid) -> Tensor:
    """GPTQ itself, all rows at once: columns in an order, each error spread over the columns after it."""
    wanted = weight.T[order].contiguous()  # [in, rows], so that a column of the weight lies together
    found = torch.empty_like(wanted)
    columns = order.tolist()
    for begin in range(0, len(columns), COLUMNS_AT_ONCE):
        end = min(begin + COLUMNS_AT_ONCE, len(columns))
        block, errors = wanted[begin:end], torch.empty_like(wanted[begin:end])
        for at in range(end - begin):
            here = begin + at
            near = to_grid(block[at], columns[here])
            found[here] = near
            errors[at] = (block[at] - near) / root[here, here]
            block[at + 1 :] -= root[here, here + 1 : end, None] * errors[at]
        wanted[end:] -= root[begin:end, end:].T @ errors
    result = torch.empty_like(found)
    result[order] = found
    return result.T.contiguous()
