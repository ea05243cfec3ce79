"""The stages ``distilled_adapter`` and ``sft_adapter``: adapters, each trained by a process of its own."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeVar

import polars as pl

from pipeline.adapters.config import DistilledAdapterConfig, RivalConfig, SftAdapterConfig, TrainingConfig
from pipeline.adapters.job import LOG_FILE, NOTES_FILE, TrainingJob, write_job
from pipeline.adapters.schemas import TRAINING_LOG
from pipeline.artifacts import Artifact, ArtifactWriter
from pipeline.errors import TrainingError
from pipeline.section import Section
from pipeline.selection.config import CuratedSubsetConfig
from pipeline.stage import StageSpec, Task
from pipeline.teacher.config import TeacherContextsConfig

C = TypeVar("C", bound=TrainingConfig)


def adapter_stage(
    name: str,
    objective: str,
    section: type[C],
    description: str,
    inputs: tuple[str, ...],
    reads: Mapping[str, type[Section]],
) -> StageSpec[C]:
    """Return the stage ``name``, which trains an adapter; ``section`` and ``inputs`` are those of its objective.

    Args:
        name: Stage and artifact.
        objective: Key of ``training.objectives.OBJECTIVES``, and name of its module.
        section: Class of the settings.
        description: What the artifact is.
        inputs: Artifacts that the objective reads.
        reads: Settings of other stages that the model card shows.
    """

    def run(task: Task[C]) -> None:
        if isinstance(task.section, RivalConfig) and not task.section.enabled:
            task.writer.append("training_log", pl.DataFrame(TRAINING_LOG.empty_table()))
            task.writer.notes["skipped"] = f"{name}.enabled is false"
        else:
            _train(task, name, objective, reads)

    return StageSpec(
        name=name,
        section=section,
        description=description,
        group="training",
        artifacts={name: {"training_log": TRAINING_LOG}},
        inputs=inputs,
        after=("tests",),  # which the evaluation could not read: told before the training, not after it
        reads=reads,
        uses_model=True,
        code=("training.run", f"training.objectives.{objective}"),
        run=run,
        plot=_plot,
    )


def _train(task: Task[C], name: str, objective: str, reads: Mapping[str, type[Section]]) -> None:
    assert task.model is not None  # the stage declares that it uses the model
    with TemporaryDirectory(prefix=".work-", dir=task.writer.folder) as folder:
        job = TrainingJob(
            objective=objective,
            stage=name,
            model=task.model,
            settings=task.section.model_dump(mode="json"),
            inputs={key: artifact.folder for key, artifact in task.inputs.items()},
            output=Path(folder, "output"),
            lineage={key: artifact.manifest.digest for key, artifact in task.inputs.items()},
            fingerprint=task.fingerprint,
            described={key: task.settings(key, kind).model_dump(mode="json") for key, kind in reads.items()},
        )
        path = Path(folder, "job.json")
        write_job(job, path)
        task.launch([sys.executable, "-m", "training.run", "--job", str(path)])
        _collect(job, task.writer)


def _collect(job: TrainingJob, writer: ArtifactWriter) -> None:
    """Move what the training process left into the artifact."""
    if not (job.output / NOTES_FILE).is_file():
        raise TrainingError(f"the training process of {job.stage} left no adapter: its last lines above say why")
    writer.append("training_log", pl.read_parquet(job.output / LOG_FILE))
    writer.notes.update(json.loads((job.output / NOTES_FILE).read_text(encoding="utf-8")))
    for path in job.output.iterdir():
        if path.name not in (LOG_FILE, NOTES_FILE):
            path.rename(writer.folder / path.name)


def _plot(artifact: Artifact) -> bytes | None:
    from pipeline.adapters.plot import plot_training

    log = artifact.read()
    return plot_training(log, artifact.manifest.name) if log.height else None


DISTILLED_ADAPTER: Final = adapter_stage(
    name="distilled_adapter",
    objective="opsd",
    section=DistilledAdapterConfig,
    description="LoRA adapter from on-policy self-distillation.",
    inputs=("teacher_contexts",),
    reads={"curated_subset": CuratedSubsetConfig, "teacher_contexts": TeacherContextsConfig},
)
SFT_ADAPTER: Final = adapter_stage(
    name="sft_adapter",
    objective="sft",
    section=SftAdapterConfig,
    description="LoRA adapter fine-tuned on the majority's responses to the same questions, to compare with.",
    inputs=("rollouts", "pseudo_labels", "curated_subset"),
    reads={"curated_subset": CuratedSubsetConfig},
)
