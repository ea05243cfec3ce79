"""Unsupervised on-policy self-distillation (u-OPSD, arXiv 2608.06296): of a question's rollouts, one teaches another.

As published: the answer with most votes must have a share of at least ``min_consistency`` of all rollouts; the teacher
is told the shortest rollout that states it (abstract; the text has the longest, and finds little between them) and is
distilled into the prefixes of the longest rollout that states another answer. A rollout without an answer is on neither
side. Questions below the share teach nothing, nor do those without a rollout that disagrees; both are left out and
counted in the notes. Length is counted in tokens; of equal ones the first counts.

Where this differs: the rollouts are the stored ones, of the untouched model, so nothing is sampled while it trains; a
tie of leading answers is no majority (published: one is drawn); divergence and teacher are settings as of all
distillation. The published ones are ``divergence=forward_kl``, whose terms are clipped there and not here, and
``teacher=base``, which ``ema`` beat.

Pinned by ``tests/training/test_own_context.py``.
"""

from typing import Any, Final

import polars as pl

from pipeline.adapters.config import RivalAdapterConfig
from pipeline.adapters.job import TrainingJob
from pipeline.answers.schemas import ANSWERS
from pipeline.models import LanguageModel
from pipeline.rollouts.schemas import ROLLOUTS
from pipeline.selection.schemas import CURATED_SUBSET
from pipeline.votes.schemas import PSEUDO_LABELS
from training.inputs import scan_input
from training.objectives import opsd, opsd_majority
from training.objectives.objective import Objective
from training.targets import agrees


class StoredResponseTrainer(opsd.OPSDTrainer):
    """Distils into responses that stand already."""

    def __init__(self, responses: dict[str, list[int]], left_out: dict[str, int], **named: Any) -> None:
        """Take the response (token ids) to each question, and how many questions are left out, by the reason."""
        self._responses, self._left_out = responses, left_out
        super().__init__(**named)

    def _generate(self, prompt_ids: list[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
        return prompt_ids, [self._responses[question] for question, _ in self._sampled]

    @property
    def notes(self) -> dict[str, Any]:
        """What is said of the training."""
        return {**self._left_out, **opsd.OBJECTIVE.notes(self)}


def read(job: TrainingJob) -> pl.LazyFrame:
    """Return what ``opsd.build`` takes and ``response_ids``, of the questions that can teach, by id."""
    stated = scan_input(job, "answers", ANSWERS).filter(pl.col("answer").is_not_null())
    sides = stated.join(_consistent(job), on="id").select("id", "sample", agrees=agrees())
    columns = ("id", "sample", "prompt", "permutation", "response", "response_ids")
    rollouts = scan_input(job, "rollouts", ROLLOUTS).select(columns).join(sides, on=["id", "sample"])
    length = pl.col("response_ids").list.len().cast(pl.Int64)
    by_length = rollouts.with_columns(rank=pl.when("agrees").then(length).otherwise(-length))
    ends = by_length.sort("id", "agrees", "rank", "sample").group_by("id", "agrees", maintain_order=True).first()
    teaching = ends.filter("agrees").select("id", privileged_context=opsd_majority.told())
    taught = ends.filter(~pl.col("agrees")).join(teaching, on="id").sort("id")
    return taught.select("id", "prompt", "permutation", "privileged_context", "response_ids")


def _selected(job: TrainingJob) -> pl.LazyFrame:
    return scan_input(job, "curated_subset", CURATED_SUBSET).filter("selected")


def _consistent(job: TrainingJob) -> pl.LazyFrame:
    """Return ``id`` and majority of the selected questions that have one of ``min_consistency``."""
    settings = RivalAdapterConfig.model_validate(job.settings)
    majority = scan_input(job, "pseudo_labels", PSEUDO_LABELS).filter(
        pl.col("representative").is_not_null(), pl.col("vote_share") >= settings.min_consistency
    )
    return majority.join(_selected(job), on="id", how="semi").select("id", "pseudo_answer", "pseudo_index")


def build(
    job: TrainingJob, settings: RivalAdapterConfig, rows: pl.DataFrame, language_model: LanguageModel
) -> StoredResponseTrainer:
    """Return a trainer for rows that ``read`` returns; raises TrainingError as distillation does."""
    responses = dict(rows.select("id", "response_ids").iter_rows())
    n_selected, n_consistent = (int(part(job).select(pl.len()).collect().item()) for part in (_selected, _consistent))
    left_out = {
        "questions_below_consistency": n_selected - n_consistent,
        "questions_without_disagreement": n_consistent - len(responses),
    }
    longest = settings.model_copy(update={"max_new_tokens": max(map(len, responses.values()))})

    def kind(**named: Any) -> StoredResponseTrainer:
        return StoredResponseTrainer(responses, left_out, **named)

    trainer = opsd.build(job, longest, rows, language_model, kind, remedy="rollouts.max_new_tokens")
    assert isinstance(trainer, StoredResponseTrainer)
    return trainer


OBJECTIVE: Final = Objective(
    title="distillation into disagreeing responses",
    summary="The base model, trained towards its own predictions given its shortest majority response, along its\n"
    "longest response that disagrees (u-OPSD, arXiv 2608.06296). No gold label and no neurons' contexts were used.",
    section=RivalAdapterConfig,
    inputs=(*opsd_majority.INPUTS, "answers"),
    read=read,
    build=build,
    notes=lambda trainer: trainer.notes,
    rows="training questions with a response that disagrees",
)
