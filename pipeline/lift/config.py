"""Settings of this room's stage."""

from typing import ClassVar

from pydantic import Field

from pipeline.section import Section


class TeacherLiftConfig(Section):
    """A trial of the teacher's contexts before anything is trained with them."""

    immaterial: ClassVar[frozenset[str]] = frozenset({"batch_tokens"})

    n_questions: int = Field(default=96, ge=0)
    """Training questions that are tried; fewer where there are fewer, 0: none, and there is no verdict."""
    n_samples: int = Field(default=4, ge=1)
    """Responses per question and set of examples, of which there are three."""
    batch_tokens: int = Field(default=16_384, ge=1)
    """Padded prompt plus response tokens of a batch; bounds memory, never results."""
    n_resamples: int = Field(default=2_000, ge=100)
    """Bootstrap resamples of questions."""
    confidence_level: float = Field(default=0.95, gt=0, lt=1)
    """Mass of the intervals."""
    seed: int = 0
    """Seed of the questions drawn, of the wrong contexts, of the responses and of the bootstrap."""
