"""What people are told of the stage ``pool``: where the raw questions went, duplicates and families."""

from typing import Any

import polars as pl

from pipeline.deduplication.prune import Pruned
from pipeline.deduplication.split import Fate

N_SHOWN = 10
"""Rows of a table; the whole is in the artifact."""


def describe(pruned: Pruned) -> dict[str, Any]:
    """Return the stage's notes: counts, and tables as lists of rows."""
    pool, dropped = pruned.pool, pruned.dropped
    copies = dropped.filter(pl.col("reason") == Fate.NEAR_DUPLICATE).group_by(id="twin").agg(copies=pl.len())
    named = pool.group_by(id="group").agg(copies=pl.len() - 1).filter(pl.col("copies") > 0)
    largest = pl.concat([copies, named]).sort(["copies", "id"], descending=[True, False]).head(N_SHOWN)
    return {
        "questions": fates_of(pool, dropped).to_dicts(),
        "stem families": family_sizes(pool).height,
        "largest stem families": family_sizes(pool).head(N_SHOWN).to_dicts(),
        "most copied questions": largest.join(pool.select("id", "question"), on="id", maintain_order="left").to_dicts(),
        "contamination": pruned.contamination.sort("score", "id", descending=[True, False]).head(N_SHOWN).to_dicts(),
    }


def family_sizes(pool: pl.DataFrame) -> pl.DataFrame:
    """Return ``template`` and ``questions`` of each stem family, the largest first."""
    sizes = pool.group_by("family").agg(pl.col("template").first(), questions=pl.len())
    return sizes.sort(["questions", "family"], descending=[True, False]).select("template", "questions")


def fates_of(pool: pl.DataFrame, dropped: pl.DataFrame) -> pl.DataFrame:
    """Return ``fate`` and ``questions``: kept first, then the reasons, the most frequent first."""
    reasons = (
        dropped.group_by(fate="reason").agg(questions=pl.len()).sort("questions", "fate", descending=[True, False])
    )
    kept = pl.DataFrame({"fate": ["kept"], "questions": [pool.height]}, schema=reasons.schema)
    return pl.concat([kept, reasons])
