"""Distillation from gold answers: a ceiling for what contexts can teach, and the one objective past the label firewall.

As on-policy self-distillation (``opsd``), on the same questions, with the same loss and the same worked examples; the
teacher sees, as a last example, the question itself with its gold answer.

Pinned by ``tests/training/test_gold_context.py``.
"""

from typing import Final

import polars as pl

from pipeline.adapters.config import CeilingAdapterConfig
from pipeline.adapters.job import TrainingJob
from pipeline.pool.schemas import GOLD_LABELS
from pipeline.prompts import render_demonstrations
from pipeline.teacher.schemas import TEACHER_CONTEXTS
from training.inputs import scan_input
from training.objectives import opsd
from training.objectives.objective import Objective

_END: Final = render_demonstrations([("", "")]).rpartition("\n\n")[2]
"""What examples end with."""


def read(job: TrainingJob) -> pl.LazyFrame:
    """Return ``id``, ``prompt`` and ``privileged_context`` of the training questions that have a gold answer, by id."""
    gold = scan_input(job, "gold_labels", GOLD_LABELS).select("id", "gold_answer")
    told = pl.struct("prompt", "privileged_context", "gold_answer").map_elements(_tell, pl.String)
    rows = scan_input(job, "teacher_contexts", TEACHER_CONTEXTS).join(gold, on="id").sort("id")
    return rows.select("id", "prompt", privileged_context=told)


def _tell(row: dict[str, str]) -> str:
    shown = render_demonstrations([(row["prompt"], f"Answer: {row['gold_answer']}")])
    return row["privileged_context"].removesuffix(_END) + shown


OBJECTIVE: Final = Objective(
    title="distillation from gold answers",
    summary="The base model, trained towards its own predictions given worked examples and the gold answer of each\n"
    "training question: a ceiling, not a result. Gold labels were used.",
    section=CeilingAdapterConfig,
    inputs=("pool", "teacher_contexts", "gold_labels"),
    read=read,
    build=opsd.build,
    notes=opsd.OBJECTIVE.notes,
    rows="training questions with a gold answer",
)
