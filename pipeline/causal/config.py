"""Settings of this room's stage."""

from typing import ClassVar

from pydantic import Field

from pipeline.section import Section


class CausalCheckConfig(Section):
    """Silencing the neurons that carry a response, against as many random ones of the same layers."""

    immaterial: ClassVar[frozenset[str]] = frozenset({"batch_tokens"})

    n_questions: int = Field(default=64, ge=1)
    """Questions drawn, with one response each; fewer where the pool has fewer."""
    top_n: int = Field(default=50, ge=1)
    """Neurons of a response that are silenced, largest contributions first."""
    n_controls: int = Field(default=3, ge=1)
    """Random draws of as many other neurons per layer, over which a response's drop is averaged."""
    batch_tokens: int = Field(default=2_048, ge=1)
    """Padded tokens of a forward batch, whose logits are formed; bounds memory, never results."""
    n_resamples: int = Field(default=2_000, ge=100)
    """Bootstrap resamples of questions."""
    confidence_level: float = Field(default=0.95, gt=0, lt=1)
    """Mass of the intervals."""
    seed: int = 0
    """Seed of the questions drawn, the random neurons and the bootstrap."""
