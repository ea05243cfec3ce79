"""Answers sampled without and with the teacher's context, compared by Jensen-Shannon divergence (INFLOW, 2026).

With the seed of the rollouts, sample s of a question is drawn with the same random numbers on both sides, so that what
differs is due to the context; a divergence between few samples is above zero by chance otherwise. Pinned by a plain
loop in ``tests/beliefs/test_beliefs.py``.
"""

from collections.abc import Iterable
from pathlib import Path

import polars as pl
from transformers import PreTrainedTokenizerBase

from pipeline.answers.equivalence import normalised
from pipeline.answers.read import read_answers
from pipeline.beliefs.config import ContextBeliefsConfig
from pipeline.beliefs.schemas import CONTEXT_BELIEFS
from pipeline.rollouts.config import Prompting
from pipeline.rollouts.schemas import UNANSWERED
from pipeline.teacher.context import assemble_contexts
from pipeline.teacher.questions import Questions
from pipeline.votes.config import PseudoLabelsConfig
from pipeline.votes.vote import ballots, vote


def pool_contexts(
    questions: Questions, tokenizer: PreTrainedTokenizerBase, config: ContextBeliefsConfig, prompting: Prompting
) -> dict[str, str]:
    """Return the teacher's context of every question of the pool, by its id, built from all the others.

    Args:
        questions: The pool with its votes, rollouts and neurons.
        tokenizer: Tokenizer with chat template, to count tokens.
        config: Builder and budget of the contexts.
        prompting: Wording of the rollouts' prompts.
    """
    contexts = assemble_contexts(questions, questions, tokenizer, config, prompting)
    return dict(contexts.select("id", "privileged_context").iter_rows())


def sampled_ballots(shards: Iterable[Path], pool: pl.DataFrame, tokenizer: PreTrainedTokenizerBase) -> pl.DataFrame:
    """Return what votes are counted of (``ballots``) from shards of schema ROLLOUTS of the questions of a pool."""
    sampled = []
    for path in shards:
        rollouts = pl.read_parquet(path)
        sampled.append(ballots(rollouts.lazy(), read_answers(rollouts, pool, tokenizer).lazy()))
    return pl.concat(sampled)


def compare_beliefs(pool: pl.DataFrame, plain: pl.DataFrame, informed: pl.DataFrame) -> pl.DataFrame:
    """Return CONTEXT_BELIEFS, sorted by id, from answers without and with context, both as ``ballots`` gives them.

    A prompt that got no response counts as no sample, not as an abstention: a context that does not fit the model
    would pass for one that changes its answers.
    """
    unanswered = pl.col("finish_reason").is_in(UNANSWERED)
    sides = {"plain": plain.filter(~unanswered), "informed": informed.filter(~unanswered)}
    leading = vote(sides["informed"], PseudoLabelsConfig()).select(
        "id",
        n_samples=pl.col("n_votes") + pl.col("n_abstentions"),
        informed_answer="pseudo_answer",
        informed_share="vote_share",
    )
    compared = pool.select("id").join(leading, on="id", how="left").join(_divergence(**sides), on="id", how="left")
    for name, responses in sides.items():
        compared = compared.join(_option_shares(pool, responses, name), on="id", how="left")
    return compared.with_columns(pl.col("n_samples").fill_null(0)).select(CONTEXT_BELIEFS.names).sort("id")


def _divergence(plain: pl.DataFrame, informed: pl.DataFrame) -> pl.DataFrame:
    """Return each question's JSD of the answers (nats), abstaining being one of them; null where a side is empty."""
    sides = pl.concat([plain.with_columns(informed=False), informed.with_columns(informed=True)])
    is_open = pl.col("answer_index").is_null()
    counts = (
        sides.group_by("id", answer=pl.when(is_open).then(normalised("answer")).otherwise("answer"))
        .agg(p=(~pl.col("informed")).sum(), q=pl.col("informed").sum())
        .sort("id", "answer")
        .with_columns(pl.col(side) / pl.col(side).sum().over("id") for side in "pq")
    )
    mean = (pl.col("p") + pl.col("q")) / 2
    terms = [pl.when(pl.col(side) > 0).then(pl.col(side) * (pl.col(side) / mean).log()).otherwise(0.0) for side in "pq"]
    divergence = ((terms[0] + terms[1]).sum() / 2).fill_nan(None)
    return counts.group_by("id", maintain_order=True).agg(belief_shift=divergence)


def _option_shares(pool: pl.DataFrame, responses: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return each question's share of votes per option, in the source's order; no row without votes or options."""
    indices = pl.int_ranges(pl.col("options").list.len(), dtype=pl.Int32)
    options = pool.select("id", answer_index=indices).explode("answer_index", empty_as_null=False)
    votes = responses.group_by("id", "answer_index").agg(votes=pl.len())
    counts = options.join(votes, on=["id", "answer_index"], how="left").with_columns(pl.col("votes").fill_null(0))
    voted = counts.filter(pl.col("votes").sum().over("id") > 0).sort("id", "answer_index")
    shares = (pl.col("votes") / pl.col("votes").sum()).cast(pl.Float32).alias(name)
    return voted.group_by("id", maintain_order=True).agg(shares)
