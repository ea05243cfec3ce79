"""Supervised fine-tuning on the model's own majority votes (Huang et al., arXiv 2210.11610), the rival of distillation.

Each selected question that has a majority gives one example: its prompt and, as target, the rollout that represents the
majority. ``MajorityVoteTrainer`` is TRL's ``SFTTrainer`` on the token ids of that rollout: nothing is tokenised again,
cut or packed, and the end token is learnt where it was sampled and nowhere else. As in distillation (``opsd``)

* the loss is the mean over all response tokens of an optimizer step, however it is split into micro-batches;
* every step takes as many different questions as trajectories; where all questions have a majority, the same ones;
* only the adapter has dropout.

Pinned by ``tests/training/test_sft.py``.
"""

from typing import Any, Final

import polars as pl
from datasets import Dataset
from torch import Tensor, nn
from trl import SFTConfig, SFTTrainer  # training is where TRL belongs
from trl.trainer.utils import RepeatSampler, disable_dropout_in_model

from pipeline.adapters.config import RivalAdapterConfig
from pipeline.adapters.job import TrainingJob
from pipeline.models import LanguageModel
from pipeline.rollouts.schemas import ROLLOUTS
from pipeline.selection.schemas import CURATED_SUBSET
from pipeline.votes.schemas import PSEUDO_LABELS
from training.inputs import scan_input
from training.objectives.objective import Objective, lora_config, trainer_arguments

_NO_TARGET: Final = -100


class MajorityVoteTrainer(SFTTrainer):  # type: ignore[misc]  # trl is untyped
    """Fine-tunes on the majority's token ids; see the module's docstring."""

    def _get_train_sampler(self, _dataset: Dataset | None = None) -> RepeatSampler:
        # Trainer's own ends an epoch with a step of what is left over.
        n_trajectories = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return RepeatSampler(self.train_dataset, mini_repeat_count=1, batch_size=n_trajectories, seed=self.args.seed)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *others: Any, **named: Any) -> Tensor:
        """Return the micro-batch's share of the step's mean cross-entropy per response token (nats)."""
        lengths = self.accelerator.gather((inputs["labels"] != _NO_TARGET).sum(1).float())
        self._metrics["train"]["completions/mean_length"].append(lengths.mean().item())
        return super().compute_loss(model, inputs, *others, **named)


def read(job: TrainingJob) -> pl.LazyFrame:
    """Return ``id``, ``prompt_ids`` and ``response_ids`` of the majority's rollouts of selected questions, by id."""
    selected = scan_input(job, "curated_subset", CURATED_SUBSET).filter("selected")
    majority = scan_input(job, "pseudo_labels", PSEUDO_LABELS).select("id", sample="representative").drop_nulls()
    rollouts = scan_input(job, "rollouts", ROLLOUTS).join(majority, on=["id", "sample"], how="semi")
    return rollouts.join(selected, on="id", how="semi").select("id", "prompt_ids", "response_ids").sort("id")


def build(
    job: TrainingJob, settings: RivalAdapterConfig, majority: pl.DataFrame, language_model: LanguageModel
) -> MajorityVoteTrainer:
    """Return a trainer for rows that ``read`` returns."""
    disable_dropout_in_model(language_model.model)
    rows = majority.select("prompt_ids", "response_ids").rows()
    return MajorityVoteTrainer(
        model=language_model.model,
        args=trainer_arguments(SFTConfig, job, settings, language_model, max_length=None),
        train_dataset=Dataset.from_dict(
            {
                "input_ids": [prompt + response for prompt, response in rows],
                "labels": [[_NO_TARGET] * len(prompt) + response for prompt, response in rows],
            }
        ),
        processing_class=language_model.tokenizer,
        peft_config=lora_config(settings),
    )


OBJECTIVE: Final = Objective(
    title="fine-tuning on majority votes",
    summary="The base model, fine-tuned on its own responses that state the majority's answer (arXiv 2210.11610):\n"
    "what on-policy self-distillation is compared with. No gold label was used: questions and targets come from the\n"
    "base model's own answers and neurons.",
    section=RivalAdapterConfig,
    inputs=("rollouts", "pseudo_labels", "curated_subset"),
    read=read,
    build=build,
    rows="training questions with a majority",
)
