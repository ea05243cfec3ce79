"""The training of an adapter as a program: one job file in, one artifact out, whole or not at all.

Exit status: 0 done, 2 the job cannot run (one line on stderr says why), 130 interrupted.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from transformers import PrinterCallback
from transformers.utils.logging import disable_progress_bar

from pipeline.adapters.job import TrainingJob, read_job
from pipeline.adapters.schemas import TRAINING_LOG
from pipeline.artifacts import ArtifactStore
from pipeline.errors import CurationError, TrainingError
from pipeline.models import load_model
from training.card import render_card
from training.checks import check_job
from training.curve import draw_curve
from training.objectives import OBJECTIVES
from training.reporting import ProgressCallback, Reporter, open_reporter


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.run", description=__doc__)
    parser.add_argument("--job", type=Path, required=True, help="JSON file of a pipeline.jobs.TrainingJob")
    path = parser.parse_args(arguments).job
    disable_progress_bar()  # of the loading of weights, which would break up the lines of the report
    # TRL 1.16 reads an attribute that transformers 5.23 has renamed; the user can do nothing about it.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    try:
        with open_reporter() as reporter:
            train(read_job(path), reporter)
    except CurationError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: no adapter was written\n")
        return 130
    return 0


def train(job: TrainingJob, reporter: Reporter) -> None:
    """Train for the job's objective and write its artifact.

    Raises ArtifactError for training questions that are missing, ModelError for a model that cannot be loaded,
    TrainingError for settings that do not fit (``training.checks``), a diverged run or too little memory.
    """
    started = time.monotonic()
    objective, store = OBJECTIVES[job.objective], ArtifactStore(job.store_root)
    questions = objective.read(store)
    language_model = load_model(job.model)
    check_job(job, language_model, questions.height)
    trainer = objective.build(job, questions, language_model)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(ProgressCallback(reporter, job.artifact))
    method = f"{objective.title}, {job.settings.steps} steps"
    reporter.line(f"training {job.model.path} on {questions.height} questions: {method}")
    try:
        trainer.train()
    except torch.OutOfMemoryError as error:
        raise TrainingError(f"the GPU's memory is exhausted: lower {job.artifact}.micro_batch") from error
    log = training_log(trainer.state.log_history)
    with store.write(job.artifact, job.fingerprint, job.provenance) as writer:
        save_adapter(trainer.model, writer.folder, job)
        (writer.folder / "README.md").write_text(render_card(job, questions.height, log), encoding="utf-8")
        (writer.folder / "training_curve.png").write_bytes(draw_curve(log, job.artifact))
        writer.append("training_log", log)
        writer.notes = {"training_questions": questions.height}
    reporter.line(f"adapter saved to {store.root / job.artifact} ({time.monotonic() - started:.0f} s)")


def training_log(history: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Return TRAINING_LOG rows from the trainer's log history."""
    columns = {
        "step": "step",
        "loss": "loss",
        "learning_rate": "learning_rate",
        "grad_norm": "grad_norm",
        "response_tokens": "completions/mean_length",
    }
    steps = [entry for entry in history if "loss" in entry]
    return pl.DataFrame(
        {column: [entry[key] for entry in steps] for column, key in columns.items()},
        schema=pl.DataFrame(TRAINING_LOG.empty_table()).schema,
    )


def save_adapter(model: Any, folder: Path, job: TrainingJob) -> None:
    """Save the adapter so that it names its base model as the configuration does, in bytes that repeat."""
    adapter = model.peft_config["default"]
    adapter.base_model_name_or_path = job.model.path  # PEFT's own is this machine's absolute path
    adapter.revision = job.model.revision
    adapter.target_modules = sorted(adapter.target_modules)  # a set, whose order changes from process to process
    # By default PEFT looks up the base model on the hub to learn whether its embedding was resized.
    model.save_pretrained(folder, save_embedding_layers=False)


if __name__ == "__main__":
    sys.exit(main())
