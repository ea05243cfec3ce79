"""Which of the model's own responses fine-tuning learns, of the selected questions.

* ``majority``: the rollout that represents the majority, one a question (LLMs can self-improve, arXiv 2210.11610).
* ``rationales``: STaR (arXiv 2203.14465) with the majority in the place of the label. All rollouts that agree with the
  majority and reason before they state their answer: at least one sentence or line that holds a word ends before the
  sentence that states it.
* ``verified``: all rollouts with an answer; which pass is for the model to say (``training.verification``).

Pinned by ``tests/training/test_targets.py``.
"""

import re
from typing import Final

import polars as pl
from transformers import PreTrainedTokenizerBase

from pipeline.adapters.config import RivalAdapterConfig
from pipeline.adapters.job import TrainingJob
from pipeline.answers.equivalence import normalised
from pipeline.answers.schemas import ANSWERS
from pipeline.models import decode
from pipeline.rollouts.schemas import ROLLOUTS
from pipeline.selection.schemas import CURATED_SUBSET
from pipeline.votes.schemas import PSEUDO_LABELS
from training.inputs import scan_input

COLUMNS: Final = ("id", "sample", "prompt", "prompt_ids", "response", "response_ids")
"""Columns of a target, as of schema ROLLOUTS."""
_REASONED: Final = re.compile(r"\w[^.!?\n]*(?:[.!?]+(?=\s)|\n)")


def scan_targets(job: TrainingJob, settings: RivalAdapterConfig) -> pl.LazyFrame:
    """Return the columns ``COLUMNS`` and ``answer_start``, one row per response that may be learnt, by id and sample.

    ``answer_start`` is null for the majority's. Raises ArtifactError (``scan_input``).
    """
    selected = scan_input(job, "curated_subset", CURATED_SUBSET).filter("selected")
    rollouts = scan_input(job, "rollouts", ROLLOUTS).select(COLUMNS).join(selected, on="id", how="semi")
    majority = scan_input(job, "pseudo_labels", PSEUDO_LABELS).filter(
        pl.col("representative").is_not_null(), pl.col("vote_share") >= settings.min_vote_share
    )
    if settings.targets == "majority":
        represents = majority.select("id", sample="representative")
        targets = rollouts.join(represents, on=["id", "sample"], how="semi").with_columns(
            answer_start=pl.lit(None, pl.Int32)
        )
    else:
        answers = scan_input(job, "answers", ANSWERS).filter(pl.col("answer").is_not_null())
        if settings.targets == "rationales":
            answers = answers.join(majority.select("id", "pseudo_answer", "pseudo_index"), on="id")
            answers = answers.filter(agrees())
        targets = rollouts.join(answers.select("id", "sample", "answer_start"), on=["id", "sample"])
    return targets.sort("id", "sample")


def agrees() -> pl.Expr:
    """Return whether an answer is the majority's, as votes are counted (columns of ANSWERS and PSEUDO_LABELS)."""
    is_open = pl.col("pseudo_index").is_null()
    same_option = pl.col("answer_index") == pl.col("pseudo_index")
    return pl.when(is_open).then(normalised("answer") == normalised("pseudo_answer")).otherwise(same_option)


def reasons(targets: pl.DataFrame, tokenizer: PreTrainedTokenizerBase) -> pl.Series:
    """Return which rows of ``scan_targets`` reason before they state their answer."""
    before = (
        decode(tokenizer, response_ids[:start])
        for response_ids, start in targets.select("response_ids", "answer_start").iter_rows()
    )
    return pl.Series([bool(_REASONED.search(text)) for text in before], dtype=pl.Boolean)
