"""Stage 5, ``curated_subset``: which pool questions become training questions.

A rule scores every question (``rule``: the interface; one file per rule), ``subset`` applies the budget and says for
each question why it was kept or not. A new rule is one file, one line in ``RULES`` and its name in
``pipeline.choices``.
"""

from collections.abc import Mapping
from typing import Final

from pipeline.choices import RuleName
from pipeline.selection.full import full
from pipeline.selection.neuron_support import neuron_support
from pipeline.selection.rule import SelectionRule
from pipeline.selection.uniform import uniform
from pipeline.selection.vote_share import vote_share

RULES: Final[Mapping[RuleName, SelectionRule]] = {
    "neuron_support": neuron_support,
    "vote_share": vote_share,
    "random": uniform,
    "full": full,
}
"""Rules by the name that ``curated_subset.rule`` gives."""

UNBUDGETED: Final = frozenset({"full"})
"""Rules that keep all they score, whatever fraction or count is configured."""
