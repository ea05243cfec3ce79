"""What a model does with the pool, question by question and without any gold: what the drift gate compares."""

from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from pipeline.answers.equivalence import normalised
from pipeline.generation.generator import LENGTH
from pipeline.retrieval.sets import NeuronSets
from pipeline.store.artifact import Artifact
from pipeline.store.store import Run
from pipeline.votes.vote import ballots

LAST_STAGE = "neuron_scores"
"""The last stage that a survey needs."""


@dataclass(frozen=True)
class Survey:
    """A model's answers to a pool, and the neurons behind them."""

    questions: pl.DataFrame
    """Per question, sorted by id: ``majority`` (null without one) and ``vote_share``; sums over its responses:
    ``responses``, ``abstained``, ``clipped``, ``tokens`` and ``surprise`` (- log-probability of the tokens, nats)."""
    stated: pl.DataFrame
    """``id`` and ``stated`` of each readable answer: the letter it was shown at, or the text of an open one."""
    ballots: pl.DataFrame
    """What votes are counted of (``pipeline.votes.vote``)."""
    neurons: NeuronSets
    """Neurons behind a question's responses, of all of them together."""
    n_neurons: int
    """MLP neurons of the model."""


def survey(run: Run, ids: pl.Series) -> Survey:
    """Read what the run's model does with these questions of its pool; raises ArtifactError for a missing artifact."""
    rollouts, answers, scores = (run.require(name) for name in ("rollouts", "answers", "neuron_scores"))
    asked = pl.col("id").is_in(ids.implode())
    responses, read = rollouts.scan().filter(asked), answers.scan().filter(asked)
    counted = responses.join(read.select("id", "sample", "answer"), on=["id", "sample"]).group_by("id")
    sums = counted.agg(
        responses=pl.len(),
        abstained=pl.col("answer").null_count(),
        clipped=(pl.col("finish_reason") == LENGTH).sum(),
        tokens=pl.col("logprobs").list.len().sum(),
        surprise=-pl.col("logprobs").list.sum().sum(),
    )
    is_open = pl.col("pseudo_index").is_null()
    majorities = (
        run.require("pseudo_labels")
        .read()
        .select(
            "id", "vote_share", majority=pl.when(is_open).then(normalised("pseudo_answer")).otherwise("pseudo_answer")
        )
    )
    return Survey(
        questions=sums.collect().join(majorities, on="id").sort("id"),
        stated=_stated(responses, read),
        ballots=ballots(responses, read),
        neurons=NeuronSets.of(scores.scan(), ids.to_list()),
        n_neurons=_n_neurons(scores),
    )


def _stated(responses: pl.LazyFrame, answers: pl.LazyFrame) -> pl.DataFrame:
    letters = responses.select(
        "id", "sample", answer_index="permutation", letter=pl.int_ranges(pl.col("permutation").list.len())
    ).explode("answer_index", "letter", empty_as_null=False)
    found = answers.drop_nulls("answer").join(letters, on=["id", "sample", "answer_index"], how="left")
    text = pl.when(pl.col("answer_index").is_null()).then(normalised("answer")).otherwise(pl.col("letter").cast(str))
    return found.select("id", stated=text).collect()


def _n_neurons(scores: Artifact) -> int:
    footer = pq.read_metadata(scores.files()[0]).metadata
    return int(np.prod([int(footer[key]) for key in (b"n_layers", b"d_mlp")]))
