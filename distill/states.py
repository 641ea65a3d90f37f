"""What a layer's attention is made from, caught while a model runs: the losses on relations compare it.

Hidden states need none of this: transformers returns them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from stillroom.distill.layers import layer_list
from stillroom.families import family_of


@dataclass(frozen=True)
class AttentionStates:
    """One layer's queries, keys and values, each [batch, length, hidden], the heads side by side."""

    query: Tensor
    key: Tensor
    value: Tensor


@contextmanager
def attention_states(model: Any, layer: int) -> Iterator[Callable[[], AttentionStates]]:
    """Within the context, a function that gives what one layer of the model made in the last forward pass.

    model: the ...ForSequenceClassification model itself. What wraps it, now or later (accelerate,
    DistributedDataParallel), may be called in its place. layer: from 0, or from the end as -1. The states are
    part of the autograd graph, and under autocast of its type; a model that only teaches is run under
    torch.no_grad. Each pass' states are given once, so that nothing keeps them alive; RuntimeError when there
    are none.
    """
    family = family_of(model.config.model_type)
    paths = {"query": family.query, "key": family.key, "value": family.value}
    caught: dict[str, Tensor] = {}

    def catcher(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def catch(module: nn.Module, inputs: Any, output: Tensor) -> None:
            caught[name] = output

        return catch

    def states() -> AttentionStates:
        if not caught:
            raise RuntimeError("no forward pass since the last time, so there are no states to give")
        found = AttentionStates(**caught)
        caught.clear()
        return found

    with ExitStack() as hooks:
        for name, path in paths.items():
            handle = layer_list(model)[layer].get_submodule(path).register_forward_hook(catcher(name))
            hooks.callback(handle.remove)
        yield states
