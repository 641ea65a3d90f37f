"""The states of a model that losses compare, by name, and how they are caught while it runs.

"hidden-0" is what the embeddings give, "hidden-2" what the second layer gives; "query-1", "key-1" and
"value-1" are what the second layer's attention is made from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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


@contextmanager
def caught_states(
    model: Any, names: Sequence[str]
) -> Iterator[Callable[[Any, dict[str, Tensor]], tuple[Tensor, dict[str, Tensor]]]]:
    """Within the context, a function: what to call, its inputs -> logits, and the states of these names.

    model: the ...ForSequenceClassification model itself; what to call may be the model or what wraps it.
    States: [batch, length, hidden].
    """
    places = [(name, *name.split("-")) for name in names]
    layers = {int(index) for _, what, index in places if what != "hidden"}
    want_hidden = any(what == "hidden" for _, what, _ in places)
    with ExitStack() as stack:
        caught = {layer: stack.enter_context(attention_states(model, layer)) for layer in sorted(layers)}

        def call(called: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            output = called(**inputs, output_hidden_states=want_hidden)
            attention = {layer: states() for layer, states in caught.items()}
            found = {}
            for name, what, index in places:
                if what == "hidden":
                    found[name] = output.hidden_states[int(index)]
                else:
                    found[name] = getattr(attention[int(index)], what)
            return output.logits, found

        yield call
