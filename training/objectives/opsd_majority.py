"""On-policy self-distillation whose teacher is told the question's own majority response, and no neurons are read.

OPSD (arXiv 2601.18734) tells the teacher a reference solution; without labels the majority's most likely rollout takes
its place. All else is as in ``opsd``; questions without a majority are left out.

Pinned by ``tests/training/test_own_context.py``.
"""

from functools import partial
from typing import Final

import polars as pl

from pipeline.adapters.config import RivalAdapterConfig
from pipeline.adapters.job import TrainingJob
from pipeline.prompts import render_demonstrations
from pipeline.rollouts.schemas import ROLLOUTS
from pipeline.selection.schemas import CURATED_SUBSET
from pipeline.votes.schemas import PSEUDO_LABELS
from training.inputs import scan_input
from training.objectives import opsd
from training.objectives.objective import Objective

INPUTS: Final = ("pool", "rollouts", "pseudo_labels", "curated_subset")


def read(job: TrainingJob) -> pl.LazyFrame:
    """Return what ``opsd.build`` takes, of the selected questions with a majority, by id; asked as the rollout was."""
    selected = scan_input(job, "curated_subset", CURATED_SUBSET).filter("selected")
    shown = scan_input(job, "pseudo_labels", PSEUDO_LABELS).select("id", sample="representative").drop_nulls()
    rollouts = scan_input(job, "rollouts", ROLLOUTS).select("id", "sample", "prompt", "permutation", "response")
    rows = rollouts.join(shown, on=["id", "sample"], how="semi").join(selected, on="id", how="semi").sort("id")
    return rows.select("id", "prompt", "permutation", privileged_context=told())


def told() -> pl.Expr:
    """Return the context that shows a question (``prompt``) with a response to it."""
    return pl.struct("prompt", "response").map_elements(
        lambda row: render_demonstrations([(row["prompt"], row["response"])]), pl.String
    )


OBJECTIVE: Final = Objective(
    title="distillation from majority responses",
    summary="The base model, trained towards its own predictions given its own majority response to each question\n"
    "(OPSD, arXiv 2601.18734, without labels). No gold label and no neurons' contexts were used.",
    section=RivalAdapterConfig,
    inputs=INPUTS,
    read=read,
    build=partial(opsd.build, remedy="rival_adapter.max_new_tokens or rollouts.max_new_tokens"),
    notes=opsd.OBJECTIVE.notes,
    rows="training questions with a majority",
)
