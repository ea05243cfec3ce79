"""What an objective is, and what all of them give their trainer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl
import torch
from peft import LoraConfig
from transformers import Trainer

from pipeline.adapters.config import TrainingConfig
from pipeline.adapters.job import TrainingJob
from pipeline.artifacts import ArtifactStore
from pipeline.models import LanguageModel


@dataclass(frozen=True)
class Objective:
    """What to train for. Adapter, optimizer and schedule are the same for all objectives."""

    title: str
    """Name of the method, for the model card."""
    summary: str
    """What was trained towards, for the model card."""
    read: Callable[[ArtifactStore], pl.DataFrame]
    """Returns the training questions, one row each."""
    build: Callable[[Any, pl.DataFrame, LanguageModel], Trainer]
    """Returns the trainer for a job of the objective's own class and its questions; puts the adapter into the model.

    Raises TrainingError when they do not fit one another.
    """


def lora_config(settings: TrainingConfig) -> LoraConfig:
    """Return PEFT's settings of the adapter."""
    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=list(settings.lora_targets),
        task_type="CAUSAL_LM",
    )


def trainer_arguments(kind: Callable[..., Any], job: TrainingJob, language_model: LanguageModel, **own: Any) -> Any:
    """Return a trainer's settings of the class ``kind``: those that all objectives share, and its ``own``."""
    settings, on_cpu = job.settings, language_model.device.type == "cpu"
    arguments = kind(
        output_dir=str(job.work_dir),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.micro_batch,
        gradient_accumulation_steps=settings.trajectories_per_step // settings.micro_batch,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup_share,  # below 1 it is a share (transformers 5)
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        seed=settings.seed,
        use_cpu=on_cpu,
        bf16=not on_cpu and language_model.model.dtype == torch.bfloat16,
        activation_checkpointing=False,
        dataloader_pin_memory=not on_cpu,
        save_strategy="no",
        logging_steps=1,
        logging_nan_inf_filter=False,  # would hide a diverged run behind the last finite loss
        report_to=[],
        disable_tqdm=True,
        **own,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # with several GPUs in sight Trainer would wrap the model
    return arguments
