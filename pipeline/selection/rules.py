"""The selection rules: a new one is a file, a line here and its name in ``pipeline.selection.config``."""

from collections.abc import Mapping
from typing import Final

from pipeline.selection.belief_shift import belief_shift, confident_shift, new_answer
from pipeline.selection.config import RuleName
from pipeline.selection.coverage import neuron_coverage, stem_coverage
from pipeline.selection.disagreement import disagreement
from pipeline.selection.entropy import entropy
from pipeline.selection.full import full
from pipeline.selection.length import length
from pipeline.selection.neuron_agreement import neuron_agreement
from pipeline.selection.neuron_support import neuron_support
from pipeline.selection.neuron_support_per_token import neuron_support_per_token
from pipeline.selection.neuron_support_residual import neuron_support_residual
from pipeline.selection.rule import SelectionRule
from pipeline.selection.self_certainty import self_certainty
from pipeline.selection.steady_shift import steady_shift
from pipeline.selection.uniform import uniform
from pipeline.selection.vote_share import vote_share

RULES: Final[Mapping[RuleName, SelectionRule]] = {
    "neuron_support": neuron_support,
    "neuron_support_per_token": neuron_support_per_token,
    "neuron_support_residual": neuron_support_residual,
    "neuron_agreement": neuron_agreement,
    "neuron_coverage": neuron_coverage,
    "stem_coverage": stem_coverage,
    "vote_share": vote_share,
    "disagreement": disagreement,
    "entropy": entropy,
    "self_certainty": self_certainty,
    "length": length,
    "belief_shift": belief_shift,
    "confident_shift": confident_shift,
    "steady_shift": steady_shift,
    "new_answer": new_answer,
    "random": uniform,
    "full": full,
}
"""Rules by the name that ``curated_subset.rule`` gives."""

UNBUDGETED: Final = frozenset({"full"})
"""Rules that keep all they score, whatever fraction or count is configured."""
