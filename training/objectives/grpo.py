"""Reinforcement by a reward without labels (GRPO, arXiv 2402.03300), what on-policy self-distillation is compared with.

A step samples a group of responses to each of some training questions and raises the probability of those that get
more than their group's mean reward (``training.rewards``), by TRL's ``GRPOTrainer``. Of TRL's own settings

* ``loss_type="dapo"``: the loss is the mean over all response tokens of an optimizer step, as in distillation;
* ``scale_rewards="group"``: advantages are divided by their group's standard deviation, as in the paper, so a group
  whose rewards are all alike teaches nothing; its tokens count all the same;
* responses that the length limit cut are kept; as a rule they state no answer and so get 0;
* the policy is the model at the sampling temperature: its logits are divided by it in sampling and in the loss;
* the KL to the base model (``beta``) is weighted by the importance ratio, which makes its gradient unbiased.

What differs from TRL:

* responses are drawn by a seed of their own with the rollouts' decoder (``training.sampling``), without dropout,
  through TRL's ``rollout_func``; they are used for the step in which they were drawn, so the importance ratio is 1;
* prompts are those of the questions' first rollouts, token for token; TRL 1.16 has no limit of theirs, so those that do
  not fit are refused;
* a response without a readable answer gets 0, whatever the reward.

Pinned by ``tests/training/test_grpo.py``.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import polars as pl
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer  # training is where TRL belongs
from trl.trainer.utils import disable_dropout_in_model

from pipeline.adapters.config import RivalAdapterConfig
from pipeline.adapters.job import TrainingJob
from pipeline.deduplication.schemas import POOL
from pipeline.errors import TrainingError
from pipeline.generation.config import Sampling
from pipeline.generation.generator import Completion
from pipeline.models import LanguageModel, encode_chat
from pipeline.rollouts.schemas import ROLLOUTS, UNANSWERED
from pipeline.selection.schemas import CURATED_SUBSET
from training.inputs import scan_input
from training.judge import Judge
from training.objectives.objective import Objective, lora_config, trainer_arguments
from training.rewards import REWARDS
from training.rewards.majority import agreement, distinct_answers
from training.rewards.reward import Response, Reward
from training.sampling import sample_responses


def read(job: TrainingJob) -> pl.LazyFrame:
    """Return ``id``, ``prompt``, ``question`` and the ``options`` as shown of selected questions, by id.

    The prompt is that of the first rollout. Questions whose prompt got no response are left out.
    """
    selected = scan_input(job, "curated_subset", CURATED_SUBSET).filter("selected")
    first = scan_input(job, "rollouts", ROLLOUTS).filter(
        pl.col("sample") == 0, ~pl.col("finish_reason").is_in(UNANSWERED)
    )
    shown = first.select("id", "prompt", order="permutation").join(selected, on="id", how="semi")
    asked = shown.join(scan_input(job, "pool", POOL).select("id", "question", "options"), on="id")
    return asked.select("id", "prompt", "question", pl.col("options").list.gather(pl.col("order"))).sort("id")


def build(
    job: TrainingJob, settings: RivalAdapterConfig, questions: pl.DataFrame, language_model: LanguageModel
) -> GRPOTrainer:
    """Return a trainer for rows that ``read`` returns.

    Raises TrainingError for a prompt that is too long.
    """
    arguments = trainer_arguments(
        GRPOConfig,
        job,
        settings,
        language_model,
        num_generations=settings.num_generations,
        beta=settings.beta,
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_completion_length=settings.max_new_tokens,
        loss_type="dapo",
        scale_rewards="group",
        disable_dropout=False,  # would silence the adapter's own; below it is done for the model
    )
    _check_lengths(job.stage, settings, language_model, questions)
    disable_dropout_in_model(language_model.model)
    return GRPOTrainer(
        model=language_model.model,
        reward_funcs=_scored(REWARDS[settings.reward], language_model),
        args=arguments,
        train_dataset=Dataset.from_dict(questions.to_dict(as_series=False)),
        processing_class=language_model.tokenizer,
        peft_config=lora_config(settings),
        rollout_func=_sampled(settings, language_model, dict(questions.select("prompt", "id").iter_rows())),
    )


def _sampled(
    settings: RivalAdapterConfig, language_model: LanguageModel, ids: Mapping[str, str]
) -> Callable[[list[str], GRPOTrainer], dict[str, Any]]:
    """Return TRL's ``rollout_func``, which samples a response to each prompt; ``ids`` are the questions' by prompt."""
    sampling = Sampling(temperature=settings.temperature, top_p=settings.top_p, max_new_tokens=settings.max_new_tokens)

    def sample(prompts: list[str], trainer: GRPOTrainer) -> dict[str, Any]:
        seen, keys = Counter[str](), []
        for prompt in prompts:
            keys.append((ids[prompt], seen[prompt]))
            seen[prompt] += 1
        prompt_ids = [encode_chat(language_model.tokenizer, prompt) for prompt in prompts]
        step = trainer.state.global_step
        completions = sample_responses(language_model, prompt_ids, sampling, keys, settings.seed, step)
        return {
            "prompt_ids": prompt_ids,
            "completion_ids": [completion.response_ids for completion in completions],
            "logprobs": None,  # of the sampler, for samplers that are not the policy itself
            "sampled": completions,
        }

    return sample


def _scored(reward: Reward, language_model: LanguageModel) -> Callable[..., list[float]]:
    """Return TRL's reward function."""
    judge = Judge(language_model)

    def scored(
        prompts: Sequence[str],
        question: Sequence[str],
        options: Sequence[Sequence[str]],
        sampled: Sequence[Completion],
        log_metric: Callable[[str, float], None],
        **_: Any,
    ) -> list[float]:
        responses = [
            Response.read(completion, prompt, text, choices, language_model.tokenizer)
            for completion, prompt, text, choices in zip(sampled, prompts, question, options, strict=True)
        ]
        log_metric("agreement", agreement(responses))
        log_metric("distinct_answers", distinct_answers(responses))
        rewards = reward(responses, judge)
        return [0.0 if each.answer is None else value for each, value in zip(responses, rewards, strict=True)]

    return scored


def _check_lengths(
    stage: str, settings: RivalAdapterConfig, language_model: LanguageModel, questions: pl.DataFrame
) -> None:
    for question, prompt in questions.select("id", "prompt").iter_rows():
        n_tokens = len(encode_chat(language_model.tokenizer, prompt))
        if n_tokens + settings.max_new_tokens > language_model.max_length:
            raise TrainingError(
                f"question {question}: a prompt of {n_tokens} tokens and {stage}.max_new_tokens = "
                f"{settings.max_new_tokens} exceed the model's {language_model.max_length} positions: lower "
                "max_new_tokens or raw_pool.max_question_chars"
            )


OBJECTIVE: Final = Objective(
    title="reinforcement without labels",
    summary="The base model, trained by GRPO (arXiv 2402.03300) towards the reward that the settings name: what\n"
    "on-policy self-distillation is compared with. No gold label was used: questions and rewards come from the\n"
    "model's own neurons, answers, probabilities or judgments.",
    section=RivalAdapterConfig,
    inputs=("pool", "rollouts", "curated_subset"),
    read=read,
    build=build,
)
