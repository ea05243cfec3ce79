"""The stage ``pool``: what of the raw pool may be trained on, and why the rest may not. Never sees a gold answer."""

from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from pipeline.deduplication.config import PoolConfig
from pipeline.deduplication.contamination import NO_EVIDENCE, contaminated
from pipeline.deduplication.families import stem_families
from pipeline.deduplication.near_duplicates import near_duplicates
from pipeline.deduplication.schemas import DROPPED, POOL
from pipeline.deduplication.split import Fate, split
from pipeline.pool.schemas import RAW_POOL


@dataclass(frozen=True)
class Pruned:
    """One frame per table of the artifact ``pool``. Every raw question is in ``pool`` or in ``dropped``, once."""

    pool: pl.DataFrame
    """Questions to train on, in the raw pool's order, of schema POOL."""
    dropped: pl.DataFrame
    """The others with the reason, of schema DROPPED, sorted by id."""
    contamination: pl.DataFrame
    """Evidence for each contaminated question, of schema CONTAMINATION, sorted by id."""
    in_domain_test: pl.DataFrame
    """Questions held out of the pool's domains, of schema RAW_POOL; without gold, which stays in its own table."""
    out_of_domain_test: pl.DataFrame
    """Questions of the domains held out, of schema RAW_POOL."""

    def reasons(self) -> str:
        """Return how many questions were dropped for which reason, in words."""
        counts = self.dropped["reason"].value_counts(sort=True)
        return ", ".join(f"{reason} {count}" for reason, count in counts.iter_rows()) or "none dropped"


def prune(raw_pool: pl.DataFrame, evaluation: pl.DataFrame | None, config: PoolConfig) -> Pruned:
    """Leave out contaminated questions, near-duplicates and held-out tests, in this order.

    Groups and families are kept together by a split, but they are no measure of contamination: what then still stands
    in a test is left out too. Both tables are of schema RAW_POOL; ``evaluation`` holds the questions that must not
    stand in the pool, if any.
    """
    leaked = _leaks(raw_pool, evaluation, config)
    clean = raw_pool.join(leaked, on="id", how="anti", maintain_order="left")
    groups = near_duplicates(clean, config)
    copies = groups.filter((pl.col("id") != pl.col("group")) & config.drop_near_duplicates)
    kept = clean.join(copies, on="id", how="anti", maintain_order="left")
    named = kept.join(groups.select("id", "group"), on="id", maintain_order="left")
    named = named.join(stem_families(kept), on="id", maintain_order="left")
    parted = named.join(split(named, config), on="id", maintain_order="left")
    tests = parted.filter(pl.col("fate").is_in([Fate.IN_DOMAIN_TEST, Fate.OUT_OF_DOMAIN_TEST]))
    crossing = _leaks(parted.filter(pl.col("fate") == Fate.POOL), tests, config)
    parted = parted.join(crossing, on="id", how="anti", maintain_order="left")
    evidence = pl.concat([leaked, crossing]).sort("id")
    held = parted.filter(pl.col("fate") != Fate.POOL)
    dropped = pl.concat(
        [
            _reasons(evidence, pl.lit(Fate.CONTAMINATED), "evaluation_id", "score"),
            _reasons(copies, pl.lit(Fate.NEAR_DUPLICATE), "group", "similarity"),
            held.select("id", reason="fate", twin=pl.lit(None, pl.String), similarity=pl.lit(None, pl.Float64)),
        ]
    )
    return Pruned(
        pool=_part(parted, Fate.POOL, POOL),
        dropped=dropped.join(raw_pool, on="id").sort("id").select(DROPPED.names),
        contamination=evidence,
        in_domain_test=_part(parted, Fate.IN_DOMAIN_TEST, RAW_POOL),
        out_of_domain_test=_part(parted, Fate.OUT_OF_DOMAIN_TEST, RAW_POOL),
    )


def _leaks(pool: pl.DataFrame, evaluation: pl.DataFrame | None, config: PoolConfig) -> pl.DataFrame:
    """Return the evidence, none without questions on one of the sides."""
    if evaluation is None or evaluation.is_empty() or pool.is_empty():
        return NO_EVIDENCE
    return contaminated(pool, evaluation, config)


def _reasons(rows: pl.DataFrame, reason: pl.Expr, twin: str, similarity: str) -> pl.DataFrame:
    return rows.select("id", reason=reason, twin=pl.col(twin), similarity=pl.col(similarity))


def _part(parted: pl.DataFrame, fate: Fate, schema: pa.Schema) -> pl.DataFrame:
    return parted.filter(pl.col("fate") == fate).select(schema.names)
