"""The list of stages, in an order in which they can run; all else that knows them takes them from here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pipeline.adapters.stage import CEILING_ADAPTER, DISTILLED_ADAPTER, RIVAL_ADAPTER
from pipeline.answers.stage import ANSWERS_STAGE
from pipeline.beliefs.stage import CONTEXT_BELIEFS_STAGE
from pipeline.causal.stage import CAUSAL_CHECK_STAGE
from pipeline.deduplication.stage import POOL_STAGE
from pipeline.evaluation.stage import EVALUATION_STAGE
from pipeline.held_out.stage import TESTS_STAGE
from pipeline.lift.stage import TEACHER_LIFT_STAGE
from pipeline.neurons.stage import NEURON_SCORES_STAGE
from pipeline.pool.stage import RAW_POOL_STAGE
from pipeline.predictions.stage import PREDICTIONS_STAGES
from pipeline.proposals.stage import PROPOSED_QUESTIONS_STAGE
from pipeline.registry import look_up
from pipeline.rollouts.stage import ROLLOUTS_STAGE
from pipeline.rounds.stage import MERGED_MODEL_STAGE
from pipeline.selection.stage import CURATED_SUBSET_STAGE
from pipeline.stage import StageSpec
from pipeline.store.artifact import Tables
from pipeline.store.store import Store
from pipeline.teacher.stage import TEACHER_CONTEXTS_STAGE
from pipeline.votes.stage import PSEUDO_LABELS_STAGE

STAGES: Final[tuple[StageSpec, ...]] = (
    RAW_POOL_STAGE,
    POOL_STAGE,
    TESTS_STAGE,
    ROLLOUTS_STAGE,
    ANSWERS_STAGE,
    PSEUDO_LABELS_STAGE,
    NEURON_SCORES_STAGE,
    CONTEXT_BELIEFS_STAGE,
    CURATED_SUBSET_STAGE,
    TEACHER_CONTEXTS_STAGE,
    TEACHER_LIFT_STAGE,
    DISTILLED_ADAPTER,
    RIVAL_ADAPTER,
    CEILING_ADAPTER,
    *PREDICTIONS_STAGES,
    EVALUATION_STAGE,
    CAUSAL_CHECK_STAGE,
    PROPOSED_QUESTIONS_STAGE,
    MERGED_MODEL_STAGE,
)
CATALOGUE: Final[Mapping[str, Tables]] = {name: tables for spec in STAGES for name, tables in spec.artifacts.items()}
"""Tables of every artifact."""


def stage_of(artifact: str) -> StageSpec:
    """Return the stage that makes an artifact; raises ConfigError for a name that none has."""
    makers = {name: spec for spec in STAGES for name in spec.artifacts}
    return look_up(makers, artifact, "artifact")


def open_store(root: Path) -> Store:
    """Return the store under a folder."""
    return Store(root, CATALOGUE)


def describe_stages() -> str:
    """Return the stages as Markdown: how data flows between them, and what each artifact holds.

    An arrow is left out where a longer way says the same.
    """
    before: dict[str, set[str]] = {}
    arrows = []
    for spec in STAGES:
        direct = {stage_of(name).name for name in (*spec.inputs, *spec.after)}
        before[spec.name] = direct.union(*(before[name] for name in direct))
        sources = [name for name in before if name in direct and not any(name in before[other] for other in direct)]
        arrows += [f"  {source} {'-.->' if spec.optional else '-->'} {spec.name}" for source in sources]
    rows = [
        f"| `{name}` | {spec.description if name == spec.name else spec.companions[name].description} |"
        for spec in STAGES
        for name in spec.artifacts
    ]
    return "\n".join(
        ["```mermaid", "flowchart LR", *arrows, "```", "", "| artifact | what it holds |", "|---|---|", *rows]
    )
