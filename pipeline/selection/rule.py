"""The interface of selection rules and what they may look at."""

from dataclasses import dataclass
from typing import Protocol

import polars as pl


@dataclass(frozen=True)
class Signals:
    """What is known of the pool without any answer key. Every table but the pool may lack questions."""

    pool: pl.DataFrame
    """Questions, of schema RAW_POOL."""
    pseudo_labels: pl.DataFrame
    """Votes per question, of schema PSEUDO_LABELS."""
    neuron_sizes: pl.DataFrame
    """Sizes of the neuron set per rollout, of schema NEURON_SIZES."""
    neuron_scores: pl.LazyFrame
    """Neuron sets per rollout, of schema NEURON_SCORES; lazy, as it is the largest table."""
    stem_scores: pl.LazyFrame
    """Neuron set of each question's own stem, of schema STEM_SCORES; likewise."""
    beliefs: pl.DataFrame
    """Answers without and with the teacher's context, of schema CONTEXT_BELIEFS; empty when none were sampled."""
    seed: int = 0
    """Seed of rules that draw; ``select_subset`` sets it from the configuration."""

    def mean_over_rollouts(self, value: pl.Expr) -> pl.DataFrame:
        """Return ``id`` and ``mean`` of ``value`` over the scored rollouts of each question, nulls left out.

        The rows are put in order first, as the last bits of a sum of floats depend on it.
        """
        ordered = self.neuron_sizes.sort("id", "sample")
        return ordered.group_by("id", maintain_order=True).agg(mean=value.mean())


class SelectionRule(Protocol):
    """Scores questions like a cost: the **lowest** score is kept first.

    The paper keeps the smallest neuron support, so its score stands as it is; a rule that prefers large values returns
    what is missing to the best one (``vote_share`` returns 1 - vote share), never a negated figure.
    """

    def __call__(self, signals: Signals, /) -> pl.DataFrame:
        """Return columns ``id`` and ``score``, one row per question at most, in any order.

        A question without a row, or whose score is null or NaN, cannot be scored and is not kept. A score must depend
        on the question's id, its rows and ``signals.seed``, never on the order of rows.
        """
