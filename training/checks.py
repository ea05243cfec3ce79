"""What a job must satisfy before it trains. Each refusal replaces a silent failure further down."""

import difflib

import torch
from torch import nn
from transformers import PreTrainedModel

from pipeline.adapters.batches import check_batches
from pipeline.adapters.config import CeilingAdapterConfig, RivalAdapterConfig, TrainingConfig
from pipeline.errors import TrainingError
from pipeline.models import LanguageModel
from training.distributed import local_rank


def check_job(
    stage: str, settings: TrainingConfig, language_model: LanguageModel, n_rows: int, rows: str = "training questions"
) -> None:
    """Raise TrainingError when settings, model and training questions do not fit one another, for any objective.

    Raises ConfigError where a step's trajectories do not come out even.

    Args:
        stage: Section that the settings are from, for messages.
        settings: Training settings.
        language_model: The model to adapt.
        n_rows: Training questions.
        rows: What they are, for messages.
    """
    check_batches(stage, settings)
    check_rows(stage, settings, n_rows, rows)
    _check_targets(stage, settings, language_model.model)
    _check_device(language_model.device)


def check_rows(stage: str, settings: TrainingConfig, n_rows: int, rows: str) -> None:
    """Raise TrainingError when the rows do not make a step; arguments as above."""
    # TRL's RepeatSampler leaves out an incomplete batch: with too few rows it trains zero steps without a word.
    if not n_rows:
        raise TrainingError(f"there are no {rows}: keep questions through curated_subset.fraction or .count")
    if n_rows < settings.trajectories_per_step:
        optional = isinstance(settings, RivalAdapterConfig | CeilingAdapterConfig)
        without = f", set {stage}.enabled=false to do without" if optional else ""
        raise TrainingError(
            f"{n_rows} {rows} are fewer than {stage}.trajectories_per_step = {settings.trajectories_per_step}: lower it"
            f"{without}, or keep more questions through curated_subset.fraction or .count"
        )


def _check_targets(stage: str, settings: TrainingConfig, model: PreTrainedModel) -> None:
    # PEFT adapts the names it finds and passes over the others.
    linear = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    for target in settings.lora_targets:
        if target not in linear:
            nearest = difflib.get_close_matches(target, sorted(linear), n=1, cutoff=0.0)
            hint = f", did you mean '{nearest[0]}'?" if nearest else ": the model has no linear layers"
            raise TrainingError(f"{stage}.lora_targets: the model has no linear layer '{target}'{hint}")
    # The losses use the output layer by itself; and merged where it is tied, an adapter of it changes the embedding.
    head = model.get_output_embeddings()
    name = next((name.rpartition(".")[2] for name, module in model.named_modules() if module is head), None)
    if name in settings.lora_targets:
        raise TrainingError(f"{stage}.lora_targets: the output layer '{name}' cannot be adapted: leave it out")


def _check_device(device: torch.device) -> None:
    # Trainer computes on the first visible GPU, of several processes on one each, and moves the model there.
    if device.type == "cuda" and device.index not in (None, local_rank()):
        raise TrainingError(
            f"model.device = '{device}': training runs on the first visible GPU, several processes on the next: "
            f"set model.device to cuda and the environment variable CUDA_VISIBLE_DEVICES to {device.index}"
        )
