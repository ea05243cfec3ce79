"""Shifts that the teacher makes surely on near questions, too: there its contexts follow a rule that can be learnt.

Where nothing connects the questions of a subject, contexts move answers as well, but to a different one each time; and
a share of few samples is mostly chance. What the model answers with the contexts of the nearest questions tells both.
Chosen in sight of gold on reference worlds (title of ``docs/studies/rules.yaml``).
"""

from math import log
from typing import Final

import numpy as np
import polars as pl

from pipeline.retrieval.nearest import nearest_by_overlap
from pipeline.retrieval.rare import common_neurons, without
from pipeline.retrieval.sets import NeuronSets
from pipeline.selection.belief_shift import sampled_beliefs
from pipeline.selection.rule import Signals

N_NEAREST: Final = 5
"""Near questions that are looked at; own choice: of 3, 5 and 8 none was better on the worlds."""
MAX_SHARE: Final = 0.03
"""Share of all stems above which a neuron tells no subject, as ``teacher_contexts.max_stem_share`` by default."""


def steady_shift(signals: Signals) -> pl.DataFrame:
    """Score a question by ln 2 - JSD x its leading share with the context x the nearest questions' mean such share.

    Nearest are the ``N_NEAREST`` largest Jaccard similarities above 0 of the rarer neurons of the stems, each weighing
    as much as its similarity; a question without any is not scored. Raises ConfigError when no beliefs were sampled.
    """
    beliefs = sampled_beliefs(signals).sort("id")
    stems = signals.stem_scores.join(beliefs.lazy().select("id"), on="id", how="semi")
    rarer = stems.select("id", without(common_neurons(stems, len(beliefs), MAX_SHARE)))
    sets = NeuronSets.of(rarer, beliefs["id"])
    rows, weights = nearest_by_overlap(sets, sets, N_NEAREST + 1)  # itself among them
    weights[(rows == np.arange(len(sets))[:, None]) | (rows < 0)] = 0
    shares = beliefs["informed_share"].fill_null(0).to_numpy()
    with np.errstate(invalid="ignore"):
        steadiness = (weights * shares[rows]).sum(1) / weights.sum(1)
    shift = beliefs["belief_shift"] * beliefs["informed_share"] * pl.Series(steadiness)
    return beliefs.select("id", score=log(2) - shift)
