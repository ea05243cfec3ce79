"""Finding the MLPs and the unembedding of a causal language model, by structure rather than by model name.

An MLP is the one module of a decoder layer that owns both an activation function and a projection back to the residual
stream. What is not certain to be one is refused: a wrong module would give scores that look right. Pinned by
``tests/neurons/test_architecture.py``.
"""

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from pipeline.errors import UnsupportedModelError

MLP_LAYOUTS: Final = (
    ("act_fn", "down_proj"),  # Llama, Qwen, Mistral, Gemma, OLMo, SmolLM3, Granite 3, StableLM, Cohere, GLM
    ("activation_fn", "down_proj"),  # Phi-3, GLM-4: gate and up projection fused
    ("activation_fn", "fc2"),  # Phi, OPT
    ("activation", "output_linear"),  # Granite 4, dense
    ("act", "dense_4h_to_h"),  # GPT-NeoX and Pythia, Falcon
    ("act", "c_proj"),  # GPT-2, GPT-Neo, StarCoder 2
    ("act", "fc_out"),  # GPT-J, CodeGen
    ("act", "down_proj"),  # MPT
    ("gelu_impl", "dense_4h_to_h"),  # BLOOM
)
"""Names of the activation function and of the projection back to the residual stream within one module."""


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

    Of a model that also sees or hears, it is the language model within. Raises UnsupportedModelError, naming the
    model's class and what is missing, for encoder-decoders, mixtures of experts, layers without an MLP such as Mamba's,
    adapters that are not merged, quantised weights, layers of different widths and any structure not recognised.
    """
    where = type(model).__name__
    _refuse_experts(model, where)
    backbone, layers = _decoder(model, where)
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
    return MlpStack(backbone, tuple(layers), activations, down_projections, W_down, W_U)


def _refuse_experts(model: PreTrainedModel, where: str) -> None:
    for name, module in model.named_modules():
        if any(word in f"{name} {type(module).__name__}".lower() for word in ("expert", "router")):
            raise UnsupportedModelError(
                f"{where}: {name}, a {type(module).__name__}, is part of a mixture of experts, which is not supported: "
                "use a dense model"
            )


def _decoder(model: PreTrainedModel, where: str) -> tuple[nn.Module, nn.ModuleList]:
    """Return the backbone and its decoder layers."""
    # A vision tower may have as many layers as the language model, so the latter is looked up first.
    backbone, n_layers = model.get_decoder(), model.config.get_text_config(decoder=True).num_hidden_layers
    found = [m for m in backbone.modules() if isinstance(m, nn.ModuleList) and len(m) == n_layers]
    if model.config.is_encoder_decoder or backbone is model or not found:
        raise UnsupportedModelError(
            f"{where}: looked for a backbone with a list of {n_layers} decoder layers, without an encoder, and found "
            "none: use a decoder-only causal language model"
        )
    return backbone, found[0]


def _find_mlp(layer: nn.Module, where: str) -> tuple[nn.Module, nn.Module]:
    """Return activation and down projection of the layer's only MLP."""
    children = [dict(module.named_children()) for module in layer.modules()]
    pairs = [(c[act], c[down]) for c in children for act, down in MLP_LAYOUTS if act in c and down in c]
    if len(pairs) != 1:
        raise UnsupportedModelError(
            f"{where}: looked for one MLP with an activation module and a down projection "
            f"({', '.join(map(' and '.join, MLP_LAYOUTS))}) and found {len(pairs)} in {type(layer).__name__} "
            f"({', '.join(children[0])}): use a dense model of a supported family"
        )
    down = pairs[0][1]
    if not isinstance(down, nn.Linear | Conv1D) or not _is_matrix(down.weight):
        raise UnsupportedModelError(
            f"{where}: the down projection is a {type(down).__name__}, not a plain linear layer: merge adapters with "
            "merge_and_unload() and load the model unquantised"
        )
    return pairs[0]


def _down_weight(down: Any) -> Tensor:
    weight: Tensor = down.weight
    return weight.T if isinstance(down, Conv1D) else weight  # Conv1D keeps its weight as [in, out]


def _is_matrix(weight: object) -> bool:
    return isinstance(weight, torch.Tensor) and weight.ndim == 2 and weight.is_floating_point()
