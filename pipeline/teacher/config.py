"""Settings of this room's stage."""

from typing import Literal

from pydantic import Field

from pipeline.section import Section

BuilderName = Literal[
    "neuron_overlap",
    "rationale_overlap",
    "stem_overlap",
    "hidden_cosine",
    "lexical",
    "pseudo_solution",
    "random",
    "none",
]
"""Builders of the teacher's context."""


class TeacherContextsConfig(Section):
    """Worked examples that the teacher sees (paper: the k = 3 nearest by neuron overlap)."""

    builder: BuilderName = "stem_overlap"
    """Context builder (pipeline.teacher); the paper's is neuron_overlap."""
    n_demonstrations: int = Field(default=3, ge=1)
    """Worked examples per question, k."""
    balance_answers: bool = False
    """Prefer, among the 4 k most similar, examples whose pseudo-answers differ; against echo of the student's vote."""
    max_stem_share: float = Field(default=0.03, gt=0, le=1)
    """Neurons in the stems of a larger share of the pool do not count in stem_overlap; 1 counts all."""
    max_teacher_tokens: int = Field(default=2_048, ge=1)
    """Budget of the teacher's whole prompt (tokens); demonstrations that do not fit are dropped whole."""
    exact_up_to: int = Field(default=50_000, ge=0)
    """Candidates compared one by one; more are searched by signatures, nearly as well (overlap of neuron sets)."""
    seed: int = 0
    """Seed of the random builder."""
