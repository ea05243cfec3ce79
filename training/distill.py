"""Stage ``distilled_adapter`` as a program: one job file in, one artifact out, whole or not at all.

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
from transformers.utils.logging import disable_progress_bar

from pipeline.artifacts import ArtifactStore, conform
from pipeline.errors import ArtifactError, CurationError, TrainingError
from pipeline.jobs import DistillationJob, read_job
from pipeline.models import load_model
from pipeline.schemas import TEACHER_CONTEXTS, TRAINING_LOG
from training.card import render_card
from training.checks import check_job
from training.curve import draw_curve
from training.opsd import build_trainer
from training.reporting import ProgressCallback, Reporter, open_reporter


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.distill", description=__doc__)
    parser.add_argument("--job", type=Path, required=True, help="JSON file of pipeline.jobs.DistillationJob")
    path = parser.parse_args(arguments).job
    disable_progress_bar()  # of the loading of weights, which would break up the lines of the report
    # TRL 1.16 reads an attribute that transformers 5.23 has renamed; the user can do nothing about it.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    try:
        with open_reporter() as reporter:
            distill(read_job(path), reporter)
    except CurationError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: no adapter was written\n")
        return 130
    return 0


def distill(job: DistillationJob, reporter: Reporter) -> None:
    """Train and write the artifact ``distilled_adapter``.

    Raises ArtifactError for contexts that are missing or not of their schema, ModelError for a model that cannot be
    loaded, TrainingError for settings that do not fit (``training.checks``), a diverged run or too little memory.
    """
    started = time.monotonic()
    contexts = read_contexts(job.contexts_path)
    language_model = load_model(job.model)
    check_job(job.settings, language_model, contexts)
    trainer = build_trainer(job.settings, language_model, contexts, job.work_dir)
    trainer.add_callback(ProgressCallback(reporter))
    reporter.line(f"distilling {job.model.path} on {contexts.height} questions for {job.settings.steps} steps")
    try:
        trainer.train()
    except torch.OutOfMemoryError as error:
        raise TrainingError("the GPU's memory is exhausted: lower distilled_adapter.micro_batch") from error
    log = training_log(trainer.state.log_history)
    with ArtifactStore(job.store_root).write("distilled_adapter", job.fingerprint, job.provenance) as writer:
        save_adapter(trainer.model, writer.folder, job)
        (writer.folder / "README.md").write_text(render_card(job, contexts.height, log), encoding="utf-8")
        (writer.folder / "training_curve.png").write_bytes(draw_curve(log))
        writer.append("training_log", log)
    reporter.line(f"adapter saved to {job.store_root / 'distilled_adapter'} ({time.monotonic() - started:.0f} s)")


def read_contexts(path: Path) -> pl.DataFrame:
    """Read the training questions; raises ArtifactError when the file is missing or not of the declared schema."""
    try:
        contexts = pl.read_parquet(path)
    except (OSError, pl.exceptions.ComputeError) as error:
        raise ArtifactError(f"{path} is missing or not Parquet: materialize 'teacher_contexts' first") from error
    conform(contexts, TEACHER_CONTEXTS, where=str(path))
    return contexts


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


def save_adapter(model: Any, folder: Path, job: DistillationJob) -> None:
    """Save the adapter so that it names its base model as the configuration does, in bytes that repeat."""
    adapter = model.peft_config["default"]
    adapter.base_model_name_or_path = job.model.path  # PEFT's own is this machine's absolute path
    adapter.revision = job.model.revision
    adapter.target_modules = sorted(adapter.target_modules)  # a set, whose order changes from process to process
    # By default PEFT looks up the base model on the hub to learn whether its embedding was resized.
    model.save_pretrained(folder, save_embedding_layers=False)


if __name__ == "__main__":
    sys.exit(main())
