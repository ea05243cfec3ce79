"""What an objective is, and what all of them give their trainer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import polars as pl
import torch
from peft import LoraConfig
from transformers import Trainer

from pipeline.adapters.config import TrainingConfig
from pipeline.adapters.job import TrainingJob
from pipeline.models import LanguageModel
from training.trackers import run_name

C = TypeVar("C", bound=TrainingConfig)


@dataclass(frozen=True)
class Objective(Generic[C]):
    """What to train for. Adapter, optimizer and schedule are the same for all objectives."""

    title: str
    """Name of the method, for the model card."""
    summary: str
    """What was trained towards, for the model card."""
    section: type[C]
    """Class of its settings."""
    inputs: tuple[str, ...]
    """Artifacts that it reads."""
    read: Callable[[TrainingJob], pl.LazyFrame]
    """Returns the training questions from the job's inputs, one row each; raises ArtifactError (``scan_input``)."""
    build: Callable[[TrainingJob, C, pl.DataFrame, LanguageModel], Trainer]
    """Returns the trainer for the questions that ``read`` returned; puts the adapter into the model.

    What ``training.checks`` asks of job, settings and model holds already. Raises TrainingError when they do not fit
    one another for this objective.
    """
    notes: Callable[[Any], dict[str, Any]] = lambda _trainer: {}
    """Returns what a trainer has to say for itself after training, for the artifact's notes."""
    rows: str = "training questions"
    """What the rows that ``read`` returns are, for messages."""


def lora_config(settings: TrainingConfig) -> LoraConfig:
    """Return PEFT's settings of the adapter."""
    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=list(settings.lora_targets),
        task_type="CAUSAL_LM",
    )


def trainer_arguments(
    kind: Callable[..., Any], job: TrainingJob, settings: TrainingConfig, language_model: LanguageModel, **own: Any
) -> Any:
    """Return a trainer's settings of the class ``kind``: those that all objectives share, and its ``own``."""
    on_cpu = language_model.device.type == "cpu"
    arguments = kind(
        output_dir=str(job.output),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.micro_batch,
        gradient_accumulation_steps=settings.trajectories_per_step // (settings.micro_batch * settings.processes),
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup_share,  # below 1 it is a share (transformers 5)
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        seed=settings.seed,
        use_cpu=on_cpu,
        ddp_find_unused_parameters=False,
        log_level_replica="error",
        bf16=not on_cpu and language_model.model.dtype == torch.bfloat16,
        activation_checkpointing=settings.activation_checkpointing,
        dataloader_pin_memory=not on_cpu,
        save_strategy="no",
        logging_steps=1,
        logging_nan_inf_filter=False,  # would hide a diverged run behind the last finite loss
        report_to=settings.report_to,
        run_name=run_name(job),
        project="neuron-opsd",
        disable_tqdm=True,
        **own,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # with several GPUs in sight Trainer would wrap the model
    return arguments
