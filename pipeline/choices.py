"""Names of the implementations that a setting chooses between, so that a misspelt one fails before anything runs.

The implementations stand in ``pipeline.selection.RULES`` and ``pipeline.teacher.BUILDERS``, whose rooms read the
configuration; tests hold the names to them.
"""

from typing import Literal

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
    "random",
    "full",
]
"""Selection rules."""
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
