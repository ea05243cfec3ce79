"""What a job must satisfy before it trains. Each refusal replaces a silent failure further down."""

import difflib

import polars as pl
import torch
from torch import nn

from pipeline.adapters.config import DistilledAdapterConfig, SftAdapterConfig
from pipeline.adapters.job import TrainingJob
from pipeline.errors import TrainingError
from pipeline.models import LanguageModel, encode_chat
from pipeline.prompts import render_teacher_prompt


def check_job(job: TrainingJob, language_model: LanguageModel, n_questions: int) -> None:
    """Raise TrainingError when settings, model and number of questions do not fit one another, for any objective."""
    _check_batches(job, n_questions)
    _check_targets(job, language_model.model)
    _check_device(language_model.device)


def check_lengths(settings: DistilledAdapterConfig, language_model: LanguageModel, contexts: pl.DataFrame) -> None:
    """Raise TrainingError when a teacher's prompt and the response to it exceed the model's positions."""
    # The student's prompt is part of the teacher's, so the teacher's length is the one that counts.
    for row in contexts.iter_rows(named=True):
        text = render_teacher_prompt(row["privileged_context"], row["prompt"])
        n_tokens = len(encode_chat(language_model.tokenizer, text))
        if n_tokens + settings.max_new_tokens > language_model.max_length:
            raise TrainingError(
                f"question {row['id']}: a teacher prompt of {n_tokens} tokens and distilled_adapter.max_new_tokens = "
                f"{settings.max_new_tokens} exceed the model's {language_model.max_length} positions: "
                "lower max_new_tokens or teacher_contexts.max_teacher_tokens"
            )


def _check_batches(job: TrainingJob, n_questions: int) -> None:
    # TRL's RepeatSampler leaves out an incomplete batch: with too few rows it trains zero steps without a word.
    n_trajectories, micro_batch = job.settings.trajectories_per_step, job.settings.micro_batch
    if n_questions < n_trajectories:
        what, remedy = "training questions", "lower it"
        if isinstance(job.settings, SftAdapterConfig):
            what, remedy = "training questions with a majority", "lower it, set sft_adapter.enabled=false to do without"
        raise TrainingError(
            f"{n_questions} {what} are fewer than {job.artifact}.trajectories_per_step = {n_trajectories}: {remedy}, "
            "or keep more questions through curated_subset.fraction or .count"
        )
    if n_trajectories % micro_batch:
        raise TrainingError(
            f"{job.artifact}.micro_batch = {micro_batch} does not divide trajectories_per_step = {n_trajectories}: "
            f"set it to a divisor, such as {max(d for d in range(1, micro_batch) if n_trajectories % d == 0)}"
        )


def _check_targets(job: TrainingJob, model: nn.Module) -> None:
    # PEFT adapts the names it finds and passes over the others.
    linear = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    for target in job.settings.lora_targets:
        if target not in linear:
            nearest = difflib.get_close_matches(target, sorted(linear), n=1, cutoff=0.0)
            hint = f", did you mean '{nearest[0]}'?" if nearest else ": the model has no linear layers"
            raise TrainingError(f"{job.artifact}.lora_targets: the model has no linear layer '{target}'{hint}")


def _check_device(device: torch.device) -> None:
    # Trainer computes on the first visible GPU and moves the model there.
    if device.type == "cuda" and device.index not in (None, 0):
        raise TrainingError(
            f"model.device = '{device}': training runs on the first visible GPU: "
            f"set model.device to cuda and the environment variable CUDA_VISIBLE_DEVICES to {device.index}"
        )
