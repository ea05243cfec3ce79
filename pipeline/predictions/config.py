"""Settings of the stages that ask models the tests."""

from typing import Any, ClassVar, Final

from pydantic import Field

from pipeline.section import Section

ASK: Final = "pipeline.predictions.p_true:ask"
"""Named, not imported: responses do not depend on it, and its code counts only where it runs."""


class PredictionsConfig(Section):
    """Responses to the tests, sampled as the rollouts were."""

    immaterial: ClassVar[frozenset[str]] = frozenset({"batch_tokens"})

    n_samples: int = Field(default=8, ge=1)
    """Samples per question: the k of Avg@k and Maj@k."""
    batch_tokens: int = Field(default=16_384, ge=1)
    """Padded prompt plus response tokens of a batch; bounds memory, never results."""
    seed: int = 0
    """Seed of the draws, combined with question id and sample number."""
    p_true: bool = False
    """Ask the model, too, whether its majority answers are right, a third confidence: one prompt per question."""

    def material(self) -> dict[str, Any]:
        """Return the settings that determine a result; what is not asked changes none."""
        return {name: value for name, value in super().material().items() if name != "p_true" or value}
