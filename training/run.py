"""The training of an adapter as a program: one job file in, plain files out, the notes last.

Several processes: the job starts as many as its setting ``processes`` says. On several machines, start them by
``torchrun --nnodes ... --nproc-per-node ... -m training.run --job job.json``, in all as many as the setting says. They
read the same files, and one writes.

Exit status: 0 done, 2 the job cannot run (one line on stderr says why), 130 interrupted.
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import torch
from transformers import PrinterCallback, Trainer
from transformers.utils.logging import disable_progress_bar

from pipeline.adapters.config import TrainingConfig
from pipeline.adapters.job import LOG_FILE, NOTES_FILE, TrainingJob, read_job
from pipeline.adapters.schemas import TRAINING_LOG
from pipeline.errors import ArtifactError, CurationError, TrainingError
from pipeline.model_fingerprint import model_fingerprint
from pipeline.models import load_model
from pipeline.section import parse_section
from pipeline.table import conform
from training.card import Trained, render_card
from training.checkpoints import Checkpoints, StepSeeds, alone, describe_run, sync, writing
from training.checks import check_job
from training.distributed import join, launch, leave, missing_processes, rank, tell
from training.guard import Guard
from training.metering import metering
from training.objectives import load_objective
from training.objectives.objective import Objective
from training.parent import end_with_input
from training.reporting import ProgressCallback, Reporter, open_reporter
from training.trackers import prepare_trackers
from training.vitals import LOGGED, Vitals


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.run", description=__doc__)
    parser.add_argument("--job", type=Path, required=True, help="JSON file of a pipeline.adapters.job.TrainingJob")
    path = parser.parse_args(arguments).job
    if n_processes := missing_processes(path):
        return launch(["-m", "training.run", "--job", str(path)], n_processes)
    end_with_input()
    disable_progress_bar()  # of the loading of weights, which would break up the lines of the report
    # TRL 1.16 uses names that transformers 5.23 has changed; the user can do nothing about it.
    warnings.filterwarnings("ignore", "`(is_)?gradient_checkpointing\\w*` is deprecated", FutureWarning)
    try:
        with open_reporter() as reporter:
            job = read_job(path)
            with alone(job.output):
                train(job, reporter)
    except CurationError as error:
        tell(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        tell("interrupted: no adapter was written; run it again to go on from the last checkpoint, if any")
        return 130
    leave()
    return 0


def train(job: TrainingJob, reporter: Reporter) -> None:
    """Train for the job's objective and leave adapter, model card, log and notes in its output folder; rank 0 does.

    What an attempt that was cut off has left there is gone on from, to the same files (``training.checkpoints``).
    Raises ConfigError for an unknown objective or setting, ArtifactError for training questions that are missing or
    damaged, ModelError for a model that cannot be loaded, TrainingError for settings that do not fit
    (``training.checks``), checkpoints of another run, a diverged run, or too little memory or room on the disk.
    """
    started = time.monotonic()
    (job.output / NOTES_FILE).unlink(missing_ok=True)  # an earlier run's would pass for this one's
    objective = load_objective(job.objective)
    settings = parse_section(objective.section, job.settings, where=f"job: settings of {job.stage}")
    questions = _read_questions(objective, job)
    join(job.stage, settings, job.model.device)
    language_model = load_model(job.model)
    n_questions = questions["id"].n_unique()  # an objective may read several responses to one
    check_job(job.stage, settings, language_model, n_questions, objective.rows)
    prepare_trackers(job, settings)
    trainer = objective.build(job, settings, questions, language_model)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Vitals(trainer, settings.kl_every))
    trainer.add_callback(ProgressCallback(reporter, job.stage))
    guard = Guard(trainer.model, reporter, settings, job.stage)
    if settings.guard != "off":
        trainer.add_callback(guard)
    method = f"{objective.title}, {settings.steps} steps"
    reporter.line(f"training {job.model.path} on {n_questions} questions: {method}")
    save = partial(save_adapter, job=job)
    made_from = describe_run(job, settings, questions)
    checkpoints = Checkpoints(trainer, job, settings.checkpoint_every, made_from, save)
    trainer.add_callback(StepSeeds())
    trainer.add_callback(checkpoints)  # the last one: what the others refuse is not saved
    with checkpoints.named_in_errors():
        with metering(trainer, language_model, job.costs):
            _run(trainer, checkpoints, job, reporter)
        if rank():
            return
        log = training_log(trainer.state.log_history)
        called = {"label": settings.label, "title": objective.title, "summary": objective.summary}
        notes = {"training_questions": n_questions, **called, **objective.notes(trainer), **guard.notes}
        with writing(job.output):
            save(trainer.model, job.output)
            render_card(_describe(job, settings, notes, log)).save(job.output / "README.md")
            pq.write_table(conform(log, TRAINING_LOG, where=LOG_FILE), job.output / LOG_FILE)
            _write_last(job.output / NOTES_FILE, notes)
    checkpoints.discard()
    reporter.line(f"adapter of {job.stage} saved ({time.monotonic() - started:.0f} s)")


def training_log(history: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Return TRAINING_LOG rows from the trainer's log history."""
    steps = [entry for entry in history if "loss" in entry]
    return pl.DataFrame(
        {column: [entry.get(key) for entry in steps] for column, key in LOGGED.items()},
        schema=pl.DataFrame(TRAINING_LOG.empty_table()).schema,
    )


def save_adapter(model: Any, folder: Path, job: TrainingJob) -> None:
    """Save the adapter, naming its base model as the configuration does, in bytes that repeat."""
    adapter = model.peft_config["default"]
    adapter.base_model_name_or_path = job.model.path  # PEFT's own is this machine's absolute path
    adapter.revision = job.model.revision
    adapter.target_modules = sorted(adapter.target_modules)  # a set, whose order changes from process to process
    # By default PEFT looks up the base model on the hub to learn whether its embedding was resized.
    model.save_pretrained(folder, save_embedding_layers=False)


def _describe(job: TrainingJob, settings: TrainingConfig, notes: dict[str, Any], log: pl.DataFrame) -> Trained:
    """Return what the model card tells of an adapter."""
    return Trained(
        stage=job.stage,
        objective=job.objective,
        model=job.model,
        model_fingerprint=model_fingerprint(job.model),
        lineage=job.lineage,
        fingerprint=job.fingerprint,
        settings=settings.material(),
        notes=notes,
        log=log,
    )


def _run(trainer: Trainer, checkpoints: Checkpoints, job: TrainingJob, reporter: Reporter) -> None:
    """Train to the end, from the last checkpoint where there is one."""
    try:
        trainer.train(resume_from_checkpoint=checkpoints.find(reporter.line))
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"the GPU's memory is exhausted: set "
            f"{job.stage}.activation_checkpointing=true or lower {job.stage}.micro_batch"
        ) from error


def _read_questions(objective: Objective[Any], job: TrainingJob) -> pl.DataFrame:
    try:
        return objective.read(job).collect()
    except (pl.exceptions.ComputeError, OSError) as error:
        inputs = "', '".join(objective.inputs)
        raise ArtifactError(f"an input of {job.stage} is damaged: materialize '{inputs}' again") from error


def _write_last(path: Path, notes: dict[str, Any]) -> None:
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(notes) + "\n", encoding="utf-8")
    sync(path.parent)
    unfinished.replace(path)


if __name__ == "__main__":
    sys.exit(main())
