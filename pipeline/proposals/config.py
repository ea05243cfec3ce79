"""Settings of this room's stage."""

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.generation.config import Sampling


class ProposedQuestionsConfig(Sampling):
    """New questions of the pool's domain, written by the model itself (as in Absolute Zero, arXiv 2505.03335)."""

    immaterial: ClassVar[frozenset[str]] = frozenset({"batch_tokens"})

    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature of the new questions; answers to them are sampled as the rollouts are."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Length limit of a new question (tokens)."""
    n_proposals: int = Field(default=200, ge=1)
    """Times that a new question is asked for."""
    n_examples: int = Field(default=3, ge=1)
    """Pool questions shown each time: one drawn at random, and those nearest to it."""
    builder: Literal["stem_overlap", "neuron_overlap"] = "stem_overlap"
    """What makes questions near: neurons of their stems, or of their responses (see teacher_contexts.builder)."""
    instruction: str = (
        "Write one new question of the same kind as these examples, about something else, "
        "in the same form. Do not answer it."
    )
    """What the model is asked for, behind the examples."""
    n_samples: int = Field(default=5, ge=1)
    """Answers to each new question."""
    min_vote_share: float = Field(default=0.4, ge=0, le=1)
    """Share of the answers that must agree; a question that nobody can answer, or that is none, gets none to agree."""
    max_vote_share: float = Field(default=1.0, gt=0, le=1)
    """Share of the answers beyond which a question is left out as too easy to learn from; 1 keeps all."""
    batch_tokens: int = Field(default=16_384, ge=1)
    """Padded prompt plus response tokens of a batch; bounds memory, never results."""
    seed: int = 0
    """Seed of the questions drawn, of the new ones and of the answers to them."""
