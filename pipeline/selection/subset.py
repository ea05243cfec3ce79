"""Stage ``curated_subset``: score, budget, and a reason for every question (paper: the share alpha = 20 %).

A question needs no pseudo-label to be kept: the student learns from the teacher's distribution given *other*
questions as context, never from its own majority answer.
"""

from dataclasses import replace

import polars as pl

from pipeline.errors import ConfigError
from pipeline.seeding import derive_seed
from pipeline.selection.config import CuratedSubsetConfig
from pipeline.selection.rule import Signals
from pipeline.selection.rules import RULES, UNBUDGETED
from pipeline.selection.schemas import CURATED_SUBSET


def select_subset(signals: Signals, config: CuratedSubsetConfig) -> pl.DataFrame:
    """Return CURATED_SUBSET: a row for every pool question, sorted by id.

    The budget is ``config.count``, or ``config.fraction`` of all questions rounded to the nearest number and at least
    1; with ``config.per_domain`` it holds within each domain. Equal scores are ordered by a hash of seed and id, so
    that neither the order of rows nor that of ids favours a question.

    Raises ConfigError for a count above what can be scored, or a rule that scores no question at all.
    """
    scores = RULES[config.rule](replace(signals, seed=config.seed))
    scored = signals.pool.select("id", "domain").join(
        scores.select("id", pl.col("score").cast(pl.Float64).fill_nan(None)), on="id", how="left", validate="1:1"
    )
    if scored["score"].null_count() == scored.height:
        raise ConfigError(
            f"curated_subset.rule = '{config.rule}' can score none of the pool's {scored.height} questions: "
            f"choose another of {', '.join(RULES)}"
        )
    ties = pl.Series("tie", [derive_seed(config.seed, "tie", i) for i in scored["id"]], dtype=pl.UInt64)
    scored = scored.with_columns(ties)
    groups = scored.partition_by("domain") if config.per_domain else [scored]
    ranked = pl.concat([_apply_budget(group, config) for group in groups])
    explained = ranked.join(_evidence(signals), on="id", how="left").with_columns(reason=_reason(config))
    return explained.select(CURATED_SUBSET.names).sort("id")


def _apply_budget(group: pl.DataFrame, config: CuratedSubsetConfig) -> pl.DataFrame:
    """Add rank, selected, cut (the last kept question's score), distance and n_scored to questions of one budget."""
    known = group.filter(pl.col("score").is_not_null()).sort("score", "tie", "id").with_row_index("rank", offset=1)
    budget = _budget(group, known.height, config)
    cut = known["score"].head(budget).last() if known.height else None
    return pl.concat([known, group.filter(pl.col("score").is_null())], how="diagonal").with_columns(
        pl.col("rank").cast(pl.Int32),
        selected=(pl.col("rank") <= budget).fill_null(value=False),
        cut=pl.lit(cut, dtype=pl.Float64),
        n_scored=pl.lit(known.height),
        distance_to_cut=pl.col("score") - pl.lit(cut, dtype=pl.Float64),
    )


def _budget(group: pl.DataFrame, n_scored: int, config: CuratedSubsetConfig) -> int:
    if config.rule in UNBUDGETED:
        return n_scored
    if config.count is None:
        return max(1, round(config.fraction * group.height))
    if config.count > n_scored:
        place = f"domain '{group['domain'][0]}'" if config.per_domain else "the pool"
        raise ConfigError(
            f"curated_subset.count = {config.count} is more than the {n_scored} questions of {place} that rule "
            f"'{config.rule}' can score: lower it to {n_scored} or less, or set curated_subset.fraction instead"
        )
    return config.count


def _evidence(signals: Signals) -> pl.DataFrame:
    """Return what there was to score a question by: its scored rollouts and the state of its vote."""
    rollouts = signals.neuron_sizes.filter(pl.col("n_neurons") > 0).group_by("id").agg(n_rollouts=pl.len())
    known = signals.pool.select("id").join(rollouts, on="id", how="left")
    return known.join(signals.pseudo_labels.select("id", "state"), on="id", how="left").with_columns(
        pl.col("n_rollouts").fill_null(0), pl.col("state").fill_null("none")
    )


def _reason(config: CuratedSubsetConfig) -> pl.Expr:
    """Return the expression of the sentence that tells a person why a question was kept or not."""
    unscored = "not kept: rule '{}' cannot score it ({} scored rollouts, vote {})"
    verdict = pl.when("selected").then(pl.lit("kept")).otherwise(pl.lit("not kept"))
    tied = ~pl.col("selected") & (pl.col("distance_to_cut") == 0)
    ranked = pl.concat_str(
        pl.format("{}: rank {} of {}", verdict, "rank", "n_scored"),
        pl.format(" in domain '{}'", "domain") if config.per_domain else pl.lit(""),
        pl.format(", score {}, cut at {}", pl.col("score").round_sig_figs(6), pl.col("cut").round_sig_figs(6)),
        pl.when(tied).then(pl.lit(", tie broken by seed")).otherwise(pl.lit("")),
    )
    return (
        pl.when(pl.col("score").is_null())
        .then(pl.format(unscored, pl.lit(config.rule), "n_rollouts", "state"))
        .otherwise(ranked)
    )
