"""Declarations of the stages that train adapters."""

from typing import Final

from pipeline.adapters.config import CeilingAdapterConfig, DistilledAdapterConfig, RivalAdapterConfig, TrainingConfig
from pipeline.adapters.schemas import TRAINING_LOG
from pipeline.stage import StageSpec


def adapter_stage(
    name: str,
    section: type[TrainingConfig],
    description: str,
    inputs: tuple[str, ...],
    after: tuple[str, ...] = (),
    gate: str | None = None,
) -> StageSpec:
    """Return the stage ``name``, which trains an adapter for the objective that its settings name.

    Args:
        name: Stage and artifact.
        section: Class of the settings.
        description: What the artifact is.
        inputs: Artifacts that the objective reads.
        after: Artifacts that must be there, besides the tests.
        gate: As of a stage.
    """
    return StageSpec(
        name=name,
        section=section,
        description=description,
        group="training",
        tables={"training_log": TRAINING_LOG},
        run="pipeline.adapters.run:run",
        inputs=inputs,
        after=("tests", *after),  # tests: which the evaluation could not read: told before the training, not after it
        uses_model=True,
        gate=gate,
        code=_code,
        plot="pipeline.adapters.plot:training_curve",
    )


def _code(settings: TrainingConfig) -> tuple[str, ...]:
    on_answers = getattr(settings, "loss_on", None) == "answer"  # else a mended reading of answers must train nothing
    return (
        "training.run",
        f"training.objectives.{settings.objective}",
        *(["training.answer_tokens"] if on_answers else []),
    )


DISTILLED_ADAPTER: Final = adapter_stage(
    name="distilled_adapter",
    section=DistilledAdapterConfig,
    description="LoRA adapter from on-policy self-distillation.",
    inputs=("pool", "teacher_contexts"),
    after=("teacher_lift",),
    gate="pipeline.adapters.gate:require_lift",
)
RIVAL_ADAPTER: Final = adapter_stage(
    name="rival_adapter",
    section=RivalAdapterConfig,
    description="LoRA adapter of a rival method on the same questions, to compare with.",
    inputs=("pool", "rollouts", "answers", "pseudo_labels", "curated_subset"),
)
CEILING_ADAPTER: Final = adapter_stage(
    name="ceiling_adapter",
    section=CeilingAdapterConfig,
    description="LoRA adapter distilled from gold answers, a ceiling; reads gold. Empty unless it is asked for.",
    inputs=("pool", "teacher_contexts", "gold_labels"),
)
