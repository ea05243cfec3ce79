"""Grading of answers against gold labels: the one place where they meet."""

import logging

import polars as pl

from pipeline.answers.equivalence import normalised
from pipeline.errors import CurationError
from pipeline.evaluation.schemas import PREDICTIONS
from pipeline.predictions.schemas import P_TRUE
from pipeline.table import conform

_logger = logging.getLogger(__name__)


def grade(
    answers: pl.DataFrame, gold: pl.DataFrame, model: str, split: str, p_true: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Mark the answer of each rollout as right or wrong.

    A choice question (its gold label has an index) is right when the stated option is the gold option, an open one
    when ``normalise_answer`` makes answer and gold equal. Abstentions are wrong. Rollouts of questions without a gold
    label are left out, and their questions counted in a log warning.

    Args:
        answers: rows of schema ANSWERS.
        gold: rows of schema GOLD_LABELS, one per question.
        model: name of the model that sampled the rollouts.
        split: name of the test.
        p_true: rows of schema P_TRUE, where the model was asked.

    Returns:
        Rows of schema PREDICTIONS, in the order of ``answers``.

    Raises:
        CurationError: no question has a gold label, or one has two.
    """
    where = f"{model} on {split}"
    if len(twice := gold.filter(pl.col("id").is_duplicated())["id"]):
        raise CurationError(f"{where}: question '{twice[0]}' has several gold labels: keep one row per id")
    graded = answers.join(gold, on="id", how="inner", maintain_order="left")
    n_questions, n_graded = answers["id"].n_unique(), graded["id"].n_unique()
    if not n_graded:
        raise CurationError(
            f"{where}: none of the {n_questions} questions has a gold label: "
            "set raw_pool.answer_column to the column of the test's answers"
        )
    if n_graded < n_questions:
        _logger.warning("%s: %d of %d questions have no gold label", where, n_questions - n_graded, n_questions)
    same_option = pl.col("answer_index") == pl.col("gold_index")
    same_text = normalised("answer") == normalised("gold_answer")
    right = pl.when(pl.col("gold_index").is_not_null()).then(same_option).otherwise(same_text).fill_null(False)
    judged = pl.DataFrame(P_TRUE.empty_table()) if p_true is None else p_true
    graded = graded.join(judged.select("id", "p_true"), on="id", how="left", maintain_order="left")
    marked = graded.with_columns(model=pl.lit(model), split=pl.lit(split), correct=right).select(PREDICTIONS.names)
    return pl.DataFrame(conform(marked, PREDICTIONS, where))
