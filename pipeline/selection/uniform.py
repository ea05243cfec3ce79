"""A random subset: the ablation that every other rule has to beat."""

import polars as pl

from pipeline.seeding import derive_seed
from pipeline.selection.rule import Signals


def uniform(signals: Signals) -> pl.DataFrame:
    """Score a question by a draw from [0, 1) that depends on the seed and the question's id alone."""
    ids = signals.pool["id"]
    return pl.DataFrame({"id": ids, "score": [derive_seed(signals.seed, "uniform", i) / 2**64 for i in ids]})
