"""Settings of this room's stage."""

from pydantic import Field

from pipeline.teacher.config import TeacherContextsConfig


class ContextBeliefsConfig(TeacherContextsConfig):
    """Answers with the teacher's context, sampled as the rollouts were, for the rules that read them.

    What a preset leaves open here is as in its section ``teacher_contexts``.
    """

    n_samples: int = Field(default=4, ge=0)
    """Responses per question with its context; 0: none are drawn, for rules that do not read them."""
