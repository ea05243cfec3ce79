"""What is known of a set of questions: the same tables describe the pool and held-out questions."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import polars as pl
import pyarrow as pa

from pipeline.errors import ConfigError
from pipeline.neurons.schemas import RATIONALE_SCORES, STEM_SCORES, STEM_STATES

QuestionSet = Literal["representative", "union"]
"""Which neurons stand for a question: those of its representative rollout, or of all its rollouts together."""


@dataclass(frozen=True)
class Demonstration:
    """A question with the rollout that stands for its pseudo-answer, reasoning included."""

    id: str
    prompt: str
    """What the rollout saw, options in its order."""
    response: str
    answer: str
    """Pseudo-answer; the option's text for a question with options."""
    group: str
    """Smallest id among the question's near-duplicates, as the stage ``pool`` found them."""


def _no_rows(schema: pa.Schema) -> pl.LazyFrame:
    return pl.DataFrame(schema.empty_table()).lazy()


@dataclass(frozen=True)
class Questions:
    """Questions, their votes, rollouts and neurons. Every table but the pool may lack questions or hold others.

    The last three serve some builders only and may be left out.
    """

    pool: pl.DataFrame
    """Questions, of schema POOL, or held-out ones of RAW_POOL, which are each a ``group`` of their own."""
    pseudo_labels: pl.DataFrame
    """Votes per question, of schema PSEUDO_LABELS."""
    rollouts: pl.LazyFrame
    """Responses, of schema ROLLOUTS."""
    neuron_scores: pl.LazyFrame
    """Neuron sets per rollout, of schema NEURON_SCORES."""
    stem_scores: pl.LazyFrame = field(default_factory=lambda: _no_rows(STEM_SCORES))
    """Neuron set of each question's stem, of schema STEM_SCORES."""
    rationale_scores: pl.LazyFrame = field(default_factory=lambda: _no_rows(RATIONALE_SCORES))
    """Neuron sets per rollout without its stated answer, of schema RATIONALE_SCORES."""
    stem_states: pl.LazyFrame = field(default_factory=lambda: _no_rows(STEM_STATES))
    """Mean hidden state of each question's stem, of schema STEM_STATES."""

    def __post_init__(self) -> None:
        """Give every question a group."""
        if "group" not in self.pool.columns:
            object.__setattr__(self, "pool", self.pool.with_columns(group="id"))

    def only(self, ids: Iterable[str]) -> Self:
        """Return the questions of ``ids``."""
        return replace(self, pool=self.pool.filter(pl.col("id").is_in(list(ids))))

    def demonstrations(self) -> list[Demonstration]:
        """Return every question that has a majority with its representative rollout, sorted by id."""
        majority = self.pseudo_labels.lazy().select("id", "pseudo_answer", sample="representative").drop_nulls()
        rollouts = self.rollouts.select("id", "sample", "prompt", "response").join(majority, on=["id", "sample"])
        shown = self.pool.select("id", "group").join(rollouts.collect(), on="id").sort("id")
        return [
            Demonstration(key, prompt, response, answer, group)
            for key, group, _, prompt, response, answer in shown.iter_rows()
        ]

    def held(self, table: Literal["stem_scores", "rationale_scores", "stem_states"]) -> pl.LazyFrame:
        """Return one of the tables that may be left out; raises ConfigError when it has no row at all.

        Without the error, every context would be empty without a word.
        """
        rows: pl.LazyFrame = getattr(self, table)
        if rows.head(1).collect().is_empty():
            raise ConfigError(
                f"teacher_contexts.builder compares questions by the table '{table}' of 'neuron_scores', which has no "
                "rows: choose another builder"
            )
        return rows

    def question_neurons(self, question_set: QuestionSet, scores: pl.LazyFrame | None = None) -> pl.LazyFrame:
        """Return ``id`` and ``neurons`` of the rollouts that stand for the questions, of ``neuron_scores`` by default.

        **Choice**, as the paper leaves it open: ``representative`` takes the rollout that is shown as demonstration,
        so that questions are compared by what was behind the shown response; a question without majority has no such
        rollout and takes all. ``union`` takes all rollouts of every question.
        """
        scores = self.neuron_scores if scores is None else scores
        scores = scores.join(self.pool.lazy().select("id"), on="id", how="semi")
        if question_set == "representative":
            shown = self.pseudo_labels.lazy().select("id", "representative")
            stands = pl.col("representative").is_null() | (pl.col("sample") == pl.col("representative"))
            scores = scores.join(shown, on="id", how="left").filter(stands)
        return scores.select("id", "neurons")
