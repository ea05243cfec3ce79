"""The stages that train adapters: write the job, start the training process, take over what it leaves."""

import json
import shutil
import sys

import polars as pl

from pipeline.adapters.config import CeilingAdapterConfig, RivalAdapterConfig, TrainingConfig
from pipeline.adapters.job import CHECKPOINTS, LOG_FILE, NOTES_FILE, TrainingJob, write_job
from pipeline.errors import TrainingError
from pipeline.ledger.usage import costs_of_process
from pipeline.stage import Task
from pipeline.store.writer import ArtifactWriter


def run(task: Task[TrainingConfig]) -> None:
    """Train the adapter in a process of its own; an adapter that is not wanted leaves an empty artifact."""
    section, writer = task.section, task.writer
    if isinstance(section, RivalAdapterConfig | CeilingAdapterConfig) and not section.enabled:
        writer.notes = {"skipped": f"{writer.name}.enabled is false"}
        return
    work = writer.folder / ".work"  # what an attempt that was cut off has left in it is gone on from
    job = TrainingJob(
        objective=section.objective,
        stage=writer.name,
        model=task.model,
        settings=section.model_dump(mode="json"),
        inputs={name: artifact.folder for name, artifact in task.inputs.items()},
        output=work / "output",
        costs=work,
        lineage={name: artifact.manifest.digest for name, artifact in task.inputs.items()},
        tracking=writer.folder.parents[2] / "tracking",
        fingerprint=task.fingerprint,
    )
    if not (job.output / NOTES_FILE).is_file():
        write_job(job, work / "job.json")
        with costs_of_process(work):
            task.launch([sys.executable, "-m", "training.run", "--job", str(work / "job.json")])
    _collect(job, writer)


def _collect(job: TrainingJob, writer: ArtifactWriter) -> None:
    """Copy what the training process left into the artifact: should this be cut off, it is there again."""
    if not (job.output / NOTES_FILE).is_file():
        raise TrainingError(f"the training process of {job.stage} left no adapter: its last lines above say why")
    writer.append("training_log", pl.read_parquet(job.output / LOG_FILE))
    base = job.model.model_dump(mode="json", exclude={"device"})  # for whoever merges the adapter into it
    writer.notes = json.loads((job.output / NOTES_FILE).read_text(encoding="utf-8")) | {"model": base}
    for path in job.output.iterdir():
        if path.name not in (LOG_FILE, NOTES_FILE, CHECKPOINTS):
            shutil.copy2(path, writer.folder / path.name)
