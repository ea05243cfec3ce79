"""On-policy self-distillation (method: KL of student and context-conditioned teacher over the student's own samples).

``OPSDTrainer`` is TRL's ``SDFTTrainer`` (arXiv 2601.19897) with what differs from it:

* the loss is the mean over all response tokens of an optimizer step, not a mean of per-sample means, so a token weighs
  the same in a short and in a long response, and micro-batches do not change the loss;
* the divergence is between the models' own distributions, at temperature 1, at whatever temperature the student was
  sampled; TRL divides both by the sampling temperature;
* the moving-average teacher is exact (``training.teacher``);
* samples and teacher are computed without dropout;
* prompts are never cut: ``training.checks`` refuses those that do not fit.

Samples are used for the step in which they were drawn, so the importance ratio is 1 and its clipping is off.
Pinned by ``tests/training/test_opsd.py``.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import polars as pl
import torch
from datasets import Dataset
from peft import LoraConfig
from torch import Tensor, nn
from transformers import PrinterCallback
from trl.experimental.sdft import SDFTConfig, SDFTTrainer  # training is where TRL belongs
from trl.experimental.sdft.loss_utils import compute_divergence
from trl.trainer.utils import disable_dropout_in_model

from pipeline.config import DistilledAdapterConfig
from pipeline.models import LanguageModel
from pipeline.prompts import TEACHER_PROMPT_TEMPLATE
from training.teacher import EMATeacher

ALPHA: Final = {"reverse_kl": 1.0, "forward_kl": 0.0, "jsd": 0.5}
"""TRL's ``distillation_alpha`` for each divergence."""


class OPSDTrainer(SDFTTrainer):  # type: ignore[misc]  # trl is untyped
    """Trains a LoRA student towards itself with the context; see the module's docstring."""

    def _setup_teacher_model(self) -> None:
        self.temperature = 1.0  # the loss's; the sampling temperature already stands in generation_config
        self.teacher_model = self.model
        self.ema: EMATeacher | None = None
        if self.args.teacher_model_kind == "ema":
            self.ema = EMATeacher(self.model, self.args.teacher_update_rate)
            self.add_callback(self.ema)

    @contextmanager
    def _get_teacher_context_for_self_distillation(self) -> Iterator[None]:
        kind = self.args.teacher_model_kind
        weights = self.ema.active() if self.ema else self.model.disable_adapter() if kind == "base" else nullcontext()
        with weights, _without_dropout(self.model):
            yield

    def sample_rollouts(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Sample one response per row and count the response tokens of the whole optimizer step."""
        with _without_dropout(self.model):
            batch = super().sample_rollouts(inputs)
        mask = batch["completion_mask"]
        batch["n_step_tokens"] = mask.sum().expand(len(mask))  # one per row, because TRL splits every tensor by rows
        return batch

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], **_: Any) -> Tensor:
        """Return the micro-batch's share of the step's mean divergence per response token (nats)."""
        logits = self._compute_teacher_student_logits(model, self.teacher_model, inputs)
        response = logits.loss_mask.bool()
        both = (logits.student_logits, logits.teacher_logits)
        student, teacher = (x[response].log_softmax(-1, torch.float32) for x in both)  # [response tokens, V]
        divergence = compute_divergence(student, teacher, self.args.distillation_alpha)  # [response tokens]
        return divergence.sum() / inputs["n_step_tokens"][0]


def build_trainer(
    settings: DistilledAdapterConfig, language_model: LanguageModel, contexts: pl.DataFrame, work_dir: Path
) -> OPSDTrainer:
    """Return a trainer for rows of the schema TEACHER_CONTEXTS; it puts the adapter into ``language_model``.

    Check the settings first with ``training.checks``.
    """
    disable_dropout_in_model(language_model.model)
    rows = contexts.select("prompt", "privileged_context").rows()
    trainer = OPSDTrainer(
        model=language_model.model,
        args=trainer_arguments(settings, language_model, work_dir),
        train_dataset=Dataset.from_dict(
            {
                "prompt": [[{"role": "user", "content": prompt}] for prompt, _ in rows],
                "privileged_context": [context for _, context in rows],
            }
        ),
        processing_class=language_model.tokenizer,
        peft_config=LoraConfig(
            r=settings.lora_rank,
            lora_alpha=settings.lora_alpha,
            lora_dropout=settings.lora_dropout,
            target_modules=list(settings.lora_targets),
            task_type="CAUSAL_LM",
        ),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def trainer_arguments(settings: DistilledAdapterConfig, language_model: LanguageModel, work_dir: Path) -> SDFTConfig:
    """Return TRL's settings for a job."""
    on_cpu = language_model.device.type == "cpu"
    arguments = SDFTConfig(
        output_dir=str(work_dir),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.micro_batch,
        gradient_accumulation_steps=settings.trajectories_per_step // settings.micro_batch,
        num_generations=1,  # as many different questions a step as trajectories
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup_share,  # below 1 it is a share (transformers 5)
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        distillation_mode="full_logits",
        distillation_alpha=ALPHA[settings.divergence],
        distillation_is_clip=None,
        teacher_model_kind=settings.teacher,
        teacher_update_rate=1 - settings.ema_decay,
        teacher_prompt_template=TEACHER_PROMPT_TEMPLATE,
        max_prompt_length=None,
        max_completion_length=settings.max_new_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        disable_dropout=False,  # would silence the adapter's own; build_trainer does it for the model
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
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # with several GPUs in sight Trainer would wrap the model
    return arguments


@contextmanager
def _without_dropout(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
