"""Settings of the stages that ask models the tests."""

from typing import ClassVar

from pydantic import Field

from pipeline.section import Section


class PredictionsConfig(Section):
    """Responses to the tests, sampled as the rollouts were."""

    immaterial: ClassVar[frozenset[str]] = frozenset({"batch_tokens"})

    n_samples: int = Field(default=8, ge=1)
    """Samples per question: the k of Avg@k and Maj@k."""
    batch_tokens: int = Field(default=16_384, ge=1)
    """Padded prompt plus response tokens of a batch; bounds memory, never results."""
    seed: int = 0
    """Seed of the draws, combined with question id and sample number."""
