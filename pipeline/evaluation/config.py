"""Settings of the stage ``evaluation``."""

from pydantic import Field

from pipeline.section import Section


class EvaluationConfig(Section):
    """The contenders on held-out questions. Besides this stage only ``ceiling_adapter`` reads gold labels."""

    n_resamples: int = Field(default=2_000, ge=100)
    """Bootstrap resamples of questions."""
    confidence_level: float = Field(default=0.95, gt=0, lt=1)
    """Mass of the intervals."""
    seed: int = 0
    """Seed of the bootstrap."""
