"""Trainers that differ in nothing but in whose they are: this project's distillation, and TRL's.

A random Llama, questions and contexts of given lengths, and an end token that the model does not have, so that every
response runs to the limit.
"""

import argparse
from pathlib import Path
from typing import Any

import polars as pl
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback
from trl.experimental.sdft import SDFTConfig, SDFTTrainer  # noqa: TID251  what ours is compared with

from benchmarks.sampling import SCALE
from pipeline.adapters.config import DistilledAdapterConfig
from pipeline.adapters.job import TrainingJob
from pipeline.model_config import ModelConfig
from pipeline.models import LanguageModel, encode_chat
from pipeline.prompts import TEACHER_PROMPT_TEMPLATE
from pipeline.reference.model import CHAT_TEMPLATE
from training.objectives import opsd
from training.objectives.objective import lora_config, trainer_arguments

NAMES = ("ours", "trl", "trl, top 100")
"""This project's; TRL's with our divergence; TRL's with its own, between the 100 likeliest tokens."""
DEFAULTS = DistilledAdapterConfig()


def build_model(shape: dict[str, Any]) -> LanguageModel:
    """Return a random Llama and a tokenizer of bytes, whose end token the model does not have."""
    torch.manual_seed(0)
    config = LlamaConfig(
        **shape, tie_word_embeddings=True, max_position_embeddings=8192, bos_token_id=None, eos_token_id=None
    )
    model = LlamaForCausalLM(config).eval()
    model.model.norm.weight.data.mul_(SCALE["smollm2"])  # a nucleus as small as a trained model's
    pad, never, *others = ["<|pad|>", "<|never|>", "<|user|>", "<|assistant|>", "<|end|>"]
    names = [pad, *others, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)} | {never: config.vocab_size}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([pad, never, *others])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=pad, eos_token=never, padding_side="left")
    fast.chat_template = CHAT_TEMPLATE
    return LanguageModel(model, fast)


def build_contexts(language_model: LanguageModel, options: argparse.Namespace) -> pl.DataFrame:
    """Return questions with contexts; prompts are as long as the options say (tokens)."""
    n_around = len(encode_chat(language_model.tokenizer, ""))
    prompts = [f"{i:03}".ljust(options.prompt_tokens - n_around, "x") for i in range(4 * DEFAULTS.micro_batch)]
    context = "y" * (options.teacher_tokens - options.prompt_tokens)
    return pl.DataFrame({"id": prompts, "prompt": prompts, "privileged_context": context})


def build_trainer(name: str, shape: dict[str, Any], options: argparse.Namespace, folder: Path, **changes: Any) -> Any:
    """Return the trainer of a name, at default settings but for ``changes`` and the options' response length."""
    settings = DEFAULTS.model_copy(update={"max_new_tokens": options.response_tokens, **changes})
    language_model, job = build_model(shape), describe_job(settings, folder)
    build = opsd.build if name == "ours" else build_stock
    trainer: Any = build(job, settings, build_contexts(language_model, options), language_model)
    if name == "trl":
        trainer.args.distillation_mode = "full_logits"
        trainer.args.distillation_alpha = opsd.ALPHA[settings.divergence]
    trainer.remove_callback(PrinterCallback)
    return trainer


def build_stock(
    job: TrainingJob, settings: DistilledAdapterConfig, contexts: pl.DataFrame, language_model: LanguageModel
) -> SDFTTrainer:
    """Return TRL's trainer for what ``training.objectives.opsd.build`` is given, with its own divergence."""
    rows = contexts.select("prompt", "privileged_context").rows()
    return SDFTTrainer(
        model=language_model.model,
        args=trainer_arguments(
            SDFTConfig,
            job,
            settings,
            language_model,
            num_generations=1,
            teacher_model_kind=settings.teacher,
            teacher_prompt_template=TEACHER_PROMPT_TEMPLATE,
            max_prompt_length=None,
            max_completion_length=settings.max_new_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
        ),
        train_dataset=Dataset.from_dict(
            {
                "prompt": [[{"role": "user", "content": prompt}] for prompt, _ in rows],
                "privileged_context": [context for _, context in rows],
            }
        ),
        processing_class=language_model.tokenizer,
        peft_config=lora_config(settings),
    )


def describe_job(settings: DistilledAdapterConfig, folder: Path) -> TrainingJob:
    """Return the job that a trainer is built for."""
    return TrainingJob(
        objective="opsd",
        stage="distilled_adapter",
        model=ModelConfig(path="random"),
        settings=settings.model_dump(mode="json"),
        inputs={},
        output=folder,
        lineage={},
        fingerprint="",
    )
