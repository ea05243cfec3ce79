"""Settings of this room's stage."""

from typing import Literal

from pydantic import Field

from pipeline.section import Section

RuleName = Literal[
    "neuron_support",
    "neuron_support_per_token",
    "neuron_support_residual",
    "neuron_agreement",
    "neuron_coverage",
    "stem_coverage",
    "vote_share",
    "disagreement",
    "entropy",
    "self_certainty",
    "length",
    "belief_shift",
    "confident_shift",
    "steady_shift",
    "new_answer",
    "random",
    "full",
]
"""Selection rules."""


class CuratedSubsetConfig(Section):
    """Which pool questions become training questions."""

    rule: RuleName = "confident_shift"
    """Selection rule (pipeline.selection); the paper's is neuron_support."""
    fraction: float = Field(default=0.2, gt=0, le=1)
    """Share of the pool to keep, alpha in the paper."""
    count: int | None = Field(default=None, ge=1)
    """Number of questions to keep; overrides the fraction."""
    per_domain: bool = False
    """Apply the budget within each domain instead of over the whole pool."""
    seed: int = 0
    """Seed of the random rule and of ties."""
