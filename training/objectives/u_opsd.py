"""Unsupervised on-policy self-distillation (u-OPSD, arXiv 2608.06296): of a question's rollouts, one teaches another.

Where the majority is consistent enough, the teacher is told the shortest rollout that agrees with it and is distilled
into the prefixes of the longest one that disagrees, a rollout of the untouched model: nothing is sampled here. Length
is counted in tokens; of equal ones the first counts.

**Choices**, where the source is silent: a rollout that states no answer neither agrees nor disagrees; questions without
a majority of ``min_consistency`` or without a rollout that disagrees are left out, and counted in the notes.

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

    def __init__(self, responses: dict[str, list[int]], n_selected: int, **named: Any) -> None:
        """Take the response (token ids) to each question, and how many questions were selected."""
        self._responses, self._n_selected = responses, n_selected
        super().__init__(**named)

    def _generate(self, prompt_ids: list[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
        return prompt_ids, [self._responses[question] for question, _ in self._sampled]

    @property
    def notes(self) -> dict[str, Any]:
        """What is said of the training."""
        return {"questions_left_out": self._n_selected - len(self._responses), **opsd.OBJECTIVE.notes(self)}


def read(job: TrainingJob) -> pl.LazyFrame:
    """Return ``id``, ``prompt``, ``privileged_context`` and ``response_ids`` of the questions that can teach, by id."""
    settings = RivalAdapterConfig.model_validate(job.settings)
    selected = scan_input(job, "curated_subset", CURATED_SUBSET).filter("selected")
    majority = scan_input(job, "pseudo_labels", PSEUDO_LABELS).filter(
        pl.col("representative").is_not_null(), pl.col("vote_share") >= settings.min_consistency
    )
    stated = scan_input(job, "answers", ANSWERS).filter(pl.col("answer").is_not_null())
    sides = stated.join(majority.select("id", "pseudo_answer", "pseudo_index"), on="id").select(
        "id", "sample", agrees=agrees()
    )
    rollouts = scan_input(job, "rollouts", ROLLOUTS).select("id", "sample", "prompt", "response", "response_ids")
    rollouts = rollouts.join(selected, on="id", how="semi").join(sides, on=["id", "sample"])
    length = pl.col("response_ids").list.len()
    by_length = rollouts.with_columns(
        rank=pl.when("agrees").then(length.cast(pl.Int64)).otherwise(-length.cast(pl.Int64))
    )
    ends = by_length.sort("id", "agrees", "rank", "sample").group_by("id", "agrees", maintain_order=True).first()
    teaching = ends.filter("agrees").select("id", privileged_context=opsd_majority.told())
    taught = ends.filter(~pl.col("agrees")).select("id", "prompt", "response_ids")
    return taught.join(teaching, on="id").sort("id").select("id", "prompt", "privileged_context", "response_ids")


def build(
    job: TrainingJob, settings: RivalAdapterConfig, rows: pl.DataFrame, language_model: LanguageModel
) -> StoredResponseTrainer:
    """Return a trainer for rows that ``read`` returns; raises TrainingError as distillation does."""
    responses = dict(rows.select("id", "response_ids").iter_rows())
    selected = scan_input(job, "curated_subset", CURATED_SUBSET).filter("selected").select(pl.len()).collect().item()
    longest = settings.model_copy(update={"max_new_tokens": max(map(len, responses.values()))})

    def kind(**named: Any) -> StoredResponseTrainer:
        return StoredResponseTrainer(responses, selected, **named)

    trainer = opsd.build(job, longest, rows, language_model, kind)
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
