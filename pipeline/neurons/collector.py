"""Reading MLP activations and hidden states while the backbone runs, one layer at a time.

Pinned by ``tests/neurons/test_collector.py``.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

from torch import Tensor, nn

from pipeline.errors import UnsupportedModelError
from pipeline.neurons.architecture import MlpStack

Unit = Literal["act_fn", "down_proj_input"]

Consumer = Callable[[int, Tensor], Tensor | None]
"""Takes a layer's number and activations; a tensor that it returns takes their place in the forward."""


@contextmanager
def collect_activations(stack: MlpStack, unit: Unit, consume: Consumer) -> Iterator[None]:
    """Hand every layer's activations to ``consume(layer, activations)`` during forwards of ``stack.backbone``.

    ``unit`` act_fn (arXiv 2607.02460) reads the output of the activation function, without the factor of the up
    projection of a gated MLP; down_proj_input reads the neuron's true activation. Activations have width M in the last
    dimension and are not kept: only one layer's exist at a time. The hooks are removed when the block ends, also by an
    error. Raises UnsupportedModelError from a forward in which a layer's hook did not run exactly once, or saw another
    width, as happens when a fused kernel bypasses the module.
    """
    fired: Counter[int] = Counter()
    remedy = "load the model without fused or replaced MLP kernels"
    if unit == "act_fn":
        remedy += ", or set neuron_scores.unit to down_proj_input"

    def observe(layer: int, activation: Tensor) -> Tensor | None:
        fired[layer] += 1
        if activation.shape[-1] != stack.d_mlp:
            raise UnsupportedModelError(f"layer {layer}: '{unit}' has width {activation.shape[-1]}, not {stack.d_mlp}")
        return consume(layer, activation)

    def begin(*_: Any) -> None:
        fired.clear()

    def verify(*_: Any) -> None:
        wrong = [layer for layer in range(stack.n_layers) if fired[layer] != 1]
        if wrong:
            raise UnsupportedModelError(
                f"{type(stack.backbone).__name__}: the '{unit}' module of layers {wrong} did not run exactly once in a "
                f"forward: {remedy}"
            )

    with ExitStack() as hooks:
        hooks.callback(stack.backbone.register_forward_pre_hook(begin).remove)
        for layer in range(stack.n_layers):
            hooks.callback(_attach(stack, unit, layer, observe).remove)
        hooks.callback(stack.backbone.register_forward_hook(verify).remove)
        yield


@contextmanager
def collect_residual(stack: MlpStack, consume: Callable[[Tensor, Tensor], None]) -> Iterator[None]:
    """Hand the hidden states ``[B, S, D]`` that enter the first layer and leave the last one to ``consume``.

    Called once per forward of ``stack.backbone``; only the former are kept while it runs. Raises UnsupportedModelError
    from a forward in which they are not tensors of one shape.
    """
    embeddings: list[Tensor] = []

    def enter(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        embeddings.append(inputs[0])

    def leave(_module: nn.Module, _inputs: Any, output: Any) -> None:
        hidden, entered = output[0] if isinstance(output, tuple) else output, embeddings.pop()
        if not isinstance(hidden, Tensor) or hidden.shape != entered.shape:
            raise UnsupportedModelError(
                f"{type(stack.layers[-1]).__name__}: looked for a hidden state of shape {tuple(entered.shape)} that "
                f"leaves the last layer and found {type(hidden).__name__}: use a model of a supported family"
            )
        consume(entered, hidden)

    with ExitStack() as hooks:
        hooks.callback(stack.layers[0].register_forward_pre_hook(enter).remove)
        hooks.callback(stack.layers[-1].register_forward_hook(leave).remove)
        yield


def _attach(stack: MlpStack, unit: Unit, layer: int, observe: Consumer) -> Any:
    if unit == "act_fn":

        def after(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor | None:
            return observe(layer, output)

        return stack.activations[layer].register_forward_hook(after)

    def before(_module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor | None:
        return observe(layer, inputs[0])

    return stack.down_projections[layer].register_forward_pre_hook(before)
