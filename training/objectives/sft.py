"""Supervised fine-tuning on the model's own responses (Huang et al., arXiv 2210.11610), the rival of distillation.

Each selected question that has a response worth learning (``training.targets``) gives an example each time that it
comes up: its prompt and one of those responses, drawn by the seed. ``ResponseTrainer`` is TRL's ``SFTTrainer`` on the
token ids of the rollout: nothing is tokenised again, cut or packed, and the end token is learnt where it was sampled
and nowhere else. As in distillation (``opsd``)

* the loss is the mean over all response tokens of an optimizer step, however it is split into micro-batches;
* every step takes as many different questions as trajectories; where all questions have a target, the same ones;
* only the adapter has dropout.

Pinned by ``tests/training/test_sft.py``.
"""

from collections.abc import Iterator
from typing import Any, Final

import polars as pl
import torch
from datasets import Dataset
from torch import Tensor, nn
from trl import SFTConfig, SFTTrainer  # training is where TRL belongs
from trl.trainer.utils import RepeatSampler, disable_dropout_in_model

from pipeline.adapters.config import RivalAdapterConfig
from pipeline.adapters.job import TrainingJob
from pipeline.models import LanguageModel
from pipeline.selection.schemas import CURATED_SUBSET
from training.checks import check_rows
from training.inputs import scan_input
from training.objectives.objective import Objective, lora_config, trainer_arguments
from training.targets import reasons, scan_targets
from training.verification import verify

_NO_TARGET: Final = -100
_WANTED: Final = {
    "majority": "a majority",
    "rationales": "a response that reasons towards the majority",
    "verified": "a response that passes verification",
}


class TargetSampler(RepeatSampler):  # type: ignore[misc]  # trl is untyped
    """Visits questions as ``RepeatSampler`` does, and at each visit draws one of the question's rows.

    The draws of an epoch depend on the generator's state at its beginning alone, and take nothing from it: questions
    come in the order in which they would with one row each.
    """

    def __init__(self, ids: pl.Series, batch_size: int, seed: int) -> None:
        """Sample rows of the questions ``ids``, in which those of a question stand together."""
        rows = pl.DataFrame({"id": ids}).with_row_index().group_by("id", maintain_order=True).agg("index")["index"]
        self._rows = rows.to_list()
        super().__init__(self._rows, mini_repeat_count=1, batch_size=batch_size, seed=seed)

    def __iter__(self) -> Iterator[int]:
        """Return an epoch's rows."""
        generator = torch.Generator()
        generator.set_state(self.generator.get_state())
        torch.randperm(len(self._rows), generator=generator)  # the order of the questions, which draws must not repeat
        draws = torch.rand(len(self._rows), generator=generator).tolist()
        for question in super().__iter__():
            rows = self._rows[question]
            yield rows[int(draws[question] * len(rows))]


class ResponseTrainer(SFTTrainer):  # type: ignore[misc]  # trl is untyped
    """Fine-tunes on the token ids of responses; see the module's docstring."""

    def __init__(self, ids: pl.Series, counts: dict[str, int], **named: Any) -> None:
        """Take the question of each row of the training set, and what was kept and left out, for the notes."""
        self._ids, self.counts = ids, counts
        super().__init__(**named)

    def _get_train_sampler(self, _dataset: Dataset | None = None) -> TargetSampler:
        # Trainer's own ends an epoch with a step of what is left over.
        n_trajectories = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return TargetSampler(self._ids, n_trajectories, self.args.seed)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *others: Any, **named: Any) -> Tensor:
        """Return the micro-batch's share of the step's mean cross-entropy per response token (nats)."""
        lengths = self.accelerator.gather((inputs["labels"] != _NO_TARGET).sum(1).float())
        self._metrics["train"]["completions/mean_length"].append(lengths.mean().item())
        return super().compute_loss(model, inputs, *others, **named)


def read(job: TrainingJob) -> pl.LazyFrame:
    """Return rows of ``training.targets.scan_targets``."""
    return scan_targets(job, RivalAdapterConfig.model_validate(job.settings))


def build(
    job: TrainingJob, settings: RivalAdapterConfig, targets: pl.DataFrame, language_model: LanguageModel
) -> ResponseTrainer:
    """Return a trainer for rows that ``read`` returns.

    Raises TrainingError when too few questions are left with a response that reasons, or passes verification.
    """
    kept, counts = _choose(settings, targets, language_model)
    n_questions = kept["id"].n_unique()
    told = "; ".join(f"{name.replace('_', ' ')}: {n}" for name, n in counts.items())
    rows = f"training questions with {_WANTED[settings.targets]}" + (f" ({told})" if told else "")
    check_rows(job.stage, settings, n_questions, rows)
    n_selected = scan_input(job, "curated_subset", CURATED_SUBSET).filter("selected").select(pl.len()).collect().item()
    disable_dropout_in_model(language_model.model)
    examples = kept.select("prompt_ids", "response_ids").rows()
    return ResponseTrainer(
        ids=kept["id"],
        counts={
            "training_questions": n_questions,
            "training_responses": kept.height,
            "questions_without_target": n_selected - n_questions,
            **counts,
        },
        model=language_model.model,
        args=trainer_arguments(SFTConfig, job, settings, language_model, max_length=None),
        train_dataset=Dataset.from_dict(
            {
                "input_ids": [prompt + response for prompt, response in examples],
                "labels": [[_NO_TARGET] * len(prompt) + response for prompt, response in examples],
            }
        ),
        processing_class=language_model.tokenizer,
        peft_config=lora_config(settings),
    )


def _choose(
    settings: RivalAdapterConfig, targets: pl.DataFrame, language_model: LanguageModel
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return the responses to learn, and how many were left out for what reason."""
    if settings.targets == "majority":
        return targets, {}
    if settings.targets == "rationales":
        kept = targets.filter(reasons(targets, language_model.tokenizer))
        return kept, {"responses_without_reasoning": targets.height - kept.height}
    passed, refused = verify(targets, language_model)
    return targets.filter(passed), {f"responses_refused_by_{check}": n for check, n in refused.items()}


OBJECTIVE: Final = Objective(
    title="fine-tuning on own responses",
    summary="The base model, fine-tuned on its own responses to the training questions, chosen as the setting\n"
    "`targets` says (arXiv 2210.11610): what on-policy self-distillation is compared with. No gold label was used:\n"
    "questions and targets come from the base model's own answers, neurons and judgments.",
    section=RivalAdapterConfig,
    inputs=("rollouts", "answers", "pseudo_labels", "curated_subset"),
    read=read,
    build=build,
    notes=lambda trainer: trainer.counts,
    rows="training questions with a response to learn",
)
