"""Settings of this room's stage."""

from typing import ClassVar

from pydantic import Field

from pipeline.teacher.config import TeacherContextsConfig


class ContextBeliefsConfig(TeacherContextsConfig):
    """Answers with the teacher's context, sampled as the rollouts were, for the rules that read them.

    What a preset leaves open here is as in its section ``teacher_contexts``.
    """

    immaterial: ClassVar[frozenset[str]] = frozenset({"batch_tokens"})

    n_samples: int = Field(default=4, ge=0)
    """Responses per question with its context; 0: none are drawn, for rules that do not read them."""
    batch_tokens: int = Field(default=16_384, ge=1)
    """Padded prompt plus response tokens of a batch; bounds memory, never results."""
