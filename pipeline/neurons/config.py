"""Settings of this room's stage."""

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.section import Section


class TokenPosition(Section):
    """Where activations are read."""

    position: Literal["predicting", "consuming"] = "predicting"
    """Where token y_t's activation is read: at t-1, which predicted it, or at t, where it is the input."""


class NeuronScoresConfig(TokenPosition):
    """Contributions of MLP neurons to the tokens of a response (paper, appendix A)."""

    immaterial: ClassVar[frozenset[str]] = frozenset({"chunk_tokens", "batch_tokens", "max_unscored_share"})

    unit: Literal["act_fn", "down_proj_input"] = "act_fn"
    """Activation: output of act_fn (the paper), or the input of down_proj (the neuron's true activation)."""
    cut: Literal["entries", "neurons"] = "entries"
    """Global top K over (layer, neuron, position), merged to neurons after it, or over neurons merged before."""
    top_k: int = Field(default=5_000, ge=1)
    """Global K per rollout."""
    top_k_per_layer: int = Field(default=2_000, ge=1)
    """Neurons kept per layer; used by the cut over neurons."""
    chunk_tokens: int = Field(default=128, ge=1)
    """Response positions of each rollout scored at once; bounds memory, never results."""
    batch_tokens: int = Field(default=16_384, ge=1)
    """Padded tokens of a forward batch, halved when they exceed the memory; bounds memory, never results."""
    score_dtype: Literal["float16", "float32"] = "float32"
    """Precision to which scores are stored, float16 in half the space; they are always accumulated in float32."""
    max_unscored_share: float = Field(default=0.5, ge=0, le=1)
    """The stage fails when a larger share of the rollouts cannot be scored."""
