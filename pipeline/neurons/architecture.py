"""Finding the MLPs and the unembedding of a causal language model, by structure rather than by model name.

An MLP is the one module of a decoder layer that owns both an activation function and a projection back to the residual
stream. What is not certain to be one is refused: a wrong module would give scores that look right. Pinned by
``tests/neurons/test_architecture.py``.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from pipeline.errors import UnsupportedModelError

ACTIVATIONS = ("act_fn", "activation_fn", "act")
"""Names of an MLP's activation module: Llama and Qwen; Phi; GPT-NeoX and GPT-2."""
DOWN_PROJECTIONS = ("down_proj", "fc2", "dense_4h_to_h", "c_proj")
"""Names of the projection from neurons to the residual stream: Llama, Qwen and Phi-3; Phi; GPT-NeoX; GPT-2."""


@dataclass(frozen=True)
class MlpStack:
    """What neuron scoring needs of a model."""

    backbone: nn.Module
    """The model without its unembedding."""
    layers: tuple[nn.Module, ...]
    """Decoder layers in order."""
    activations: tuple[nn.Module, ...]
    """Activation function of each layer's MLP; its output has width d_mlp."""
    down_projections: tuple[nn.Module, ...]
    """Projection of each layer's MLP from d_mlp to d_model."""
    W_down: tuple[Tensor, ...]
    """Weight of each down projection, ``[D, M]``; the model's own memory."""
    W_U: Tensor
    """Unembedding, ``[V, D]``, tied to the embedding or not; the model's own memory."""

    @property
    def n_layers(self) -> int:
        """Decoder layers."""
        return len(self.W_down)

    @property
    def d_mlp(self) -> int:
        """Neurons per layer."""
        return self.W_down[0].shape[1]


def find_mlp_stack(model: PreTrainedModel) -> MlpStack:
    """Return the MLPs and the unembedding of a loaded causal language model.

    Raises UnsupportedModelError, naming the model's class and what is missing, for mixtures of experts, adapters that
    are not merged, quantised weights, layers of different widths and any structure that is not recognised.
    """
    where = type(model).__name__
    layers = _decoder_layers(model, where)
    mlps = [_find_mlp(layer, f"{where}, layer {index}") for index, layer in enumerate(layers)]
    W_U: Any = getattr(model.get_output_embeddings(), "weight", None)
    if not _is_matrix(W_U):
        raise UnsupportedModelError(f"{where}: no unembedding matrix found: use an unquantised causal language model")
    activations, down_projections = zip(*mlps, strict=True)
    W_down = tuple(_down_weight(down) for down in down_projections)
    shapes = sorted({tuple(weight.shape) for weight in W_down})
    if len(shapes) > 1:
        raise UnsupportedModelError(f"{where}: down projections of different shapes {shapes} are not supported")
    if W_U.shape[1] != W_down[0].shape[0]:
        raise UnsupportedModelError(
            f"{where}: the unembedding reads width {W_U.shape[1]} but the MLPs write width {W_down[0].shape[0]}: "
            "models that project between the two are not supported"
        )
    return MlpStack(model.base_model, tuple(layers), activations, down_projections, W_down, W_U)


def _decoder_layers(model: PreTrainedModel, where: str) -> nn.ModuleList:
    n_layers = model.config.get_text_config(decoder=True).num_hidden_layers
    backbone = model.base_model
    found = [m for m in backbone.modules() if isinstance(m, nn.ModuleList) and len(m) == n_layers]
    if backbone is model or not found:
        raise UnsupportedModelError(
            f"{where}: looked for a backbone with a list of {n_layers} decoder layers and found none: "
            "use a decoder-only causal language model"
        )
    return found[0]


def _find_mlp(layer: nn.Module, where: str) -> tuple[nn.Module, nn.Module]:
    """Return activation and down projection of the layer's only MLP."""
    for name, module in layer.named_modules():
        if "expert" in f"{name} {type(module).__name__}".lower():
            raise UnsupportedModelError(
                f"{where}: {type(module).__name__} is part of a mixture of experts, which is not supported: "
                "use a dense model"
            )
    pairs = [
        (act, down)
        for m in layer.modules()
        if (act := _child(m, ACTIVATIONS)) and (down := _child(m, DOWN_PROJECTIONS))
    ]
    if len(pairs) != 1:
        raise UnsupportedModelError(
            f"{where}: looked for one MLP with an activation module ({', '.join(ACTIVATIONS)}) and a down projection "
            f"({', '.join(DOWN_PROJECTIONS)}) and found {len(pairs)}: use a model of a supported family"
        )
    down = pairs[0][1]
    if not isinstance(down, nn.Linear | Conv1D) or not _is_matrix(down.weight):
        raise UnsupportedModelError(
            f"{where}: the down projection is a {type(down).__name__}, not a plain linear layer: merge adapters with "
            "merge_and_unload() and load the model unquantised"
        )
    return pairs[0]


def _child(module: nn.Module, names: tuple[str, ...]) -> nn.Module | None:
    children = dict(module.named_children())
    return next((children[name] for name in names if name in children), None)


def _down_weight(down: Any) -> Tensor:
    weight: Tensor = down.weight
    return weight.T if isinstance(down, Conv1D) else weight  # Conv1D keeps its weight as [in, out]


def _is_matrix(weight: object) -> bool:
    return isinstance(weight, torch.Tensor) and weight.ndim == 2 and weight.is_floating_point()
