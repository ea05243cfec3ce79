"""On-policy self-distillation (method: KL of student and context-conditioned teacher over the student's own samples).

``OPSDTrainer`` is TRL's ``SDFTTrainer`` (arXiv 2601.19897) with what differs from it:

* the loss is the mean over all response tokens of an optimizer step, not a mean of per-sample means, so a token weighs
  the same in a short and in a long response, and micro-batches do not change the loss;
* the divergence is between the models' own distributions, at temperature 1, at whatever temperature the student was
  sampled; TRL divides both by the sampling temperature;
* the divergence is taken in chunks of tokens, so that no more logits stand at a time (``training.divergence``);
* the moving-average teacher averages effective weights (``training.teacher``);
* samples and teacher are computed without dropout, and each sample is drawn by a seed of its own
  (``training.sampling``);
* prompts are never cut: those that do not fit are refused;
* which tokens of a response count is a setting (``training.loss_mask``).

Samples are used for the step in which they were drawn, so the importance ratio is 1 and its clipping is off.
Pinned by ``tests/training/test_opsd.py``.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Final

import polars as pl
import torch
from datasets import Dataset
from torch import Tensor, nn
from trl.experimental.sdft import SDFTConfig, SDFTTrainer  # training is where TRL belongs
from trl.trainer.utils import disable_dropout_in_model

from pipeline.adapters.config import DistillationConfig, DistilledAdapterConfig
from pipeline.adapters.job import TrainingJob
from pipeline.errors import TrainingError
from pipeline.generation.config import Sampling
from pipeline.models import LanguageModel, encode_chat
from pipeline.prompts import TEACHER_PROMPT_TEMPLATE, render_teacher_prompt
from pipeline.teacher.schemas import TEACHER_CONTEXTS
from training.distributed import average_gradients
from training.divergence import apply_head, check_head, last_hidden_states, sum_divergence
from training.inputs import scan_input
from training.loss_mask import LossMask
from training.objectives.objective import Objective, lora_config, trainer_arguments
from training.sampling import sample_responses, without_dropout
from training.teacher import EMATeacher

ALPHA: Final = {"reverse_kl": 1.0, "forward_kl": 0.0, "jsd": 0.5}
"""TRL's ``distillation_alpha`` for each divergence."""


class OPSDTrainer(SDFTTrainer):  # type: ignore[misc]  # trl is untyped
    """Trains a LoRA student towards itself with the context; see the module's docstring."""

    def __init__(self, loss_mask: LossMask, top_k: int | None, **named: Any) -> None:
        """Take which tokens count and how many the divergence tells apart, besides what ``SDFTTrainer`` takes."""
        self.loss_mask, self.top_k = loss_mask, top_k
        super().__init__(**named)

    def _setup_teacher_model(self) -> None:
        self.temperature = 1.0  # the loss's; the sampling temperature stands in the arguments
        self.teacher_model = self.model
        self.ema: EMATeacher | None = None
        if self.args.teacher_model_kind == "ema":
            self.ema = EMATeacher(self.model, self.args.teacher_update_rate)
            self.add_callback(self.ema)

    @contextmanager
    def _get_teacher_context_for_self_distillation(self) -> Iterator[None]:
        kind = self.args.teacher_model_kind
        weights = self.ema.active() if self.ema else self.model.disable_adapter() if kind == "base" else nullcontext()
        with weights, without_dropout(self.model):
            yield

    def sample_rollouts(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Sample one response per row and count the response tokens of the whole optimizer step."""
        self._sampled = [(row["id"], 0) for row in inputs]
        batch = super().sample_rollouts(inputs)
        batch["loss_mask"] = mask = self.loss_mask(
            [row["id"] for row in inputs], batch["prompt_ids"], batch["completion_ids"], batch["completion_mask"]
        )
        # Of all processes, by their number, because their gradients are averaged; one per row, because TRL splits every
        # tensor by rows.
        n_tokens = self.accelerator.reduce(mask.sum(), "sum").clamp(min=1) / self.accelerator.num_processes
        batch["n_step_tokens"] = n_tokens.expand(len(mask))
        return batch

    def training_step(self, *inputs: Any, **named: Any) -> Tensor:
        """Take the gradient of a micro-batch; after the step's last one, the gradients are those of all processes."""
        loss = super().training_step(*inputs, **named)
        if self.accelerator.sync_gradients:
            average_gradients(self.model)  # DDP's hooks wait for its own forward, which the loss's parts go past
        return loss

    def _generate(self, prompt_ids: list[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
        student = LanguageModel(self.model.get_base_model(), self.processing_class)
        sampling = Sampling(
            temperature=self.args.temperature, top_p=self.args.top_p, max_new_tokens=self.args.max_completion_length
        )
        seed, step = self.args.seed, self.state.global_step
        completions = sample_responses(student, prompt_ids, sampling, self._sampled, seed, step)
        return prompt_ids, [completion.response_ids for completion in completions]

    def compute_loss(self, _model: nn.Module, inputs: dict[str, Any], **_: Any) -> Tensor:
        """Return the micro-batch's share of the step's mean divergence per response token (nats)."""
        mask, counts = inputs["completion_mask"], inputs["loss_mask"]
        prompts, prompt_mask = inputs["prompt_ids"], inputs["prompt_mask"]
        ids, attention = (torch.cat(pair, 1) for pair in ((prompts, inputs["completion_ids"]), (prompt_mask, mask)))
        with self.accelerator.autocast():
            # The teacher first: what its long prompts take is free again when the student's activations are kept.
            with torch.no_grad(), self._get_teacher_context_for_self_distillation():
                teacher = self._hidden_states(inputs["teacher_input_ids"], inputs["teacher_attention_mask"], counts)
            student = self._hidden_states(ids, attention, counts)
            if not len(student):  # no token of the micro-batch counts
                self._metrics["train"]["entropy"].append(0.0)
                return student.sum()
            head = partial(apply_head, self.model.get_base_model())
            entropies: list[Tensor] = []
            divergence = sum_divergence(student, teacher, head, self.args.distillation_alpha, self.top_k, entropies)
        self._metrics["train"]["entropy"].append(float(torch.cat(entropies).mean()))  # as TRL's other trainers do
        return divergence / inputs["n_step_tokens"][0]

    def _hidden_states(self, ids: Tensor, attention_mask: Tensor, response_mask: Tensor) -> Tensor:
        """Return the last hidden states that predict the marked tokens of the responses, ``[marked tokens, D]``."""
        hidden = last_hidden_states(self.model.get_base_model(), ids, attention_mask)
        return hidden[:, -response_mask.shape[1] - 1 : -1][response_mask.bool()]


def read(job: TrainingJob) -> pl.LazyFrame:
    """Return rows of the schema TEACHER_CONTEXTS."""
    return scan_input(job, "teacher_contexts", TEACHER_CONTEXTS)


def build(
    job: TrainingJob,
    settings: DistillationConfig,
    contexts: pl.DataFrame,
    language_model: LanguageModel,
    kind: Callable[..., OPSDTrainer] = OPSDTrainer,
    remedy: str | None = None,
) -> OPSDTrainer:
    """Return a trainer, of the class ``kind``, for rows with columns ``id``, ``prompt`` and ``privileged_context``.

    A column ``permutation`` has the index of the option at each letter of the prompt, where that is not the pool's.
    Raises TrainingError for a prompt that is too long, naming the settings to lower (``remedy``; by default those of
    worked examples), and for a model whose logits cannot be taken in chunks.
    """
    check_lengths(job.stage, settings, language_model, contexts, remedy)
    check_head(language_model.model)
    disable_dropout_in_model(language_model.model)
    rows = contexts.select("id", "prompt", "privileged_context").rows()
    orders = dict(contexts.select("id", "permutation").iter_rows()) if "permutation" in contexts.columns else {}
    return kind(
        loss_mask=LossMask(job, settings, language_model, orders),
        top_k=settings.top_k,
        model=language_model.model,
        args=trainer_arguments(
            SDFTConfig,
            job,
            settings,
            language_model,
            num_generations=1,  # as many different questions a step as trajectories
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
            disable_dropout=False,  # would silence the adapter's own; above it is done for the model
        ),
        train_dataset=Dataset.from_dict(
            {
                "id": [question for question, _, _ in rows],
                "prompt": [[{"role": "user", "content": prompt}] for _, prompt, _ in rows],
                "privileged_context": [context for _, _, context in rows],
            }
        ),
        processing_class=language_model.tokenizer,
        peft_config=lora_config(settings),
    )


def check_lengths(
    stage: str,
    settings: DistillationConfig,
    language_model: LanguageModel,
    contexts: pl.DataFrame,
    remedy: str | None = None,
) -> None:
    """Raise TrainingError, naming the settings to lower, when a teacher's prompt and response exceed the positions."""
    # The student's prompt is part of the teacher's, so the teacher's length is the one that counts.
    for row in contexts.iter_rows(named=True):
        text = render_teacher_prompt(row["privileged_context"], row["prompt"])
        n_tokens = len(encode_chat(language_model.tokenizer, text))
        if n_tokens + settings.max_new_tokens > language_model.max_length:
            raise TrainingError(
                f"question {row['id']}: a teacher prompt of {n_tokens} tokens and a response of up to "
                f"{settings.max_new_tokens} exceed the model's {language_model.max_length} positions: "
                f"lower {remedy or f'{stage}.max_new_tokens or teacher_contexts.max_teacher_tokens'}"
            )


OBJECTIVE: Final = Objective(
    title="on-policy self-distillation",
    summary="The base model, trained towards its own predictions given worked examples (Neuron-OPSD). No gold label\n"
    "was used: questions, contexts and targets come from the base model's own answers and neurons.",
    section=DistilledAdapterConfig,
    inputs=("pool", "teacher_contexts"),
    read=read,
    build=build,
    notes=lambda trainer: {"teacher_error_bound": trainer.ema.error_bound()} if trainer.ema else {},
)
