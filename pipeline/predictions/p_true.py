"""P(True): how likely the model itself finds its majority answer right (Kadavath et al., arXiv 2207.05221, section 4).

The model is shown the question and the proposed answer, and the probability of Yes against No is read off its next
token: nothing is sampled. (The paper has it choose of (A) True and (B) False; words ask less of a small model.) Pinned
by a forward pass of its own in ``tests/predictions/test_p_true.py``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl
import torch

from pipeline.answers.option_tokens import OptionTokens
from pipeline.batching import TokenBudget
from pipeline.beliefs.beliefs import sampled_ballots
from pipeline.models import LanguageModel, encode_chat, has_special_tokens, load_model
from pipeline.predictions.config import PredictionsConfig
from pipeline.predictions.schemas import P_TRUE
from pipeline.prompts import render_question
from pipeline.stage import Task
from pipeline.votes.config import PseudoLabelsConfig
from pipeline.votes.vote import vote

ASKED: Final = "{question}\n\nProposed answer: {answer}\n\nIs the proposed answer right? Reply with Yes or No."
"""What is asked, the options in the source's order."""


@dataclass(frozen=True)
class _Prompt:
    """A question to the model, named by the question that it is about."""

    id: str
    ids: Sequence[int]
    sample: int = 0


def ask(task: Task[PredictionsConfig], split: str, questions: pl.DataFrame, adapter: Path | None) -> pl.DataFrame:
    """Return P_TRUE of the majority answers of a test, which was sampled, by the model with the adapter, if any."""
    model = load_model(task.model, adapter)
    answered = sampled_ballots(task.writer.shards(split), questions, model.tokenizer)
    votes = vote(answered, PseudoLabelsConfig()).select("id", "pseudo_answer").drop_nulls()
    return p_true(questions, dict(votes.iter_rows()), model, task.section.batch_tokens)


def p_true(
    questions: pl.DataFrame, answers: Mapping[str, str], language_model: LanguageModel, batch_tokens: int
) -> pl.DataFrame:
    """Return P_TRUE, sorted by id: P(Yes) / (P(Yes) + P(No)) that the proposed answers are right.

    Left out are prompts that hold special tokens of the model or do not fit it; there is no row at all where the
    tokenizer begins Yes and No with the same token.

    Args:
        questions: Columns ``id``, ``question`` and ``options`` of schema RAW_POOL.
        answers: Proposed answer by id; other questions are left out.
        language_model: The model that is asked.
        batch_tokens: Padded tokens of a batch; bounds memory, never results.
    """
    tokenizer = language_model.tokenizer
    verdicts = OptionTokens.by_text(tokenizer, ("Yes", "No"))
    prompts = []
    for key, text, options in questions.select("id", "question", "options").iter_rows():
        if verdicts.options and key in answers:
            asked = ASKED.format(question=render_question(text, options or [], ""), answer=answers[key])
            prompt = _Prompt(key, encode_chat(tokenizer, asked))
            if len(prompt.ids) <= language_model.max_length and not has_special_tokens(tokenizer, asked):
                prompts.append(prompt)
    prompts.sort(key=lambda prompt: (len(prompt.ids), prompt.id))

    def compute(batch: Sequence[_Prompt]) -> list[float]:
        return _p_yes(batch, language_model, verdicts)

    rows = [
        (prompt.id, answers[prompt.id], share)
        for batch, shares in TokenBudget(batch_tokens).run(prompts, lambda prompt: len(prompt.ids), compute)
        for prompt, share in zip(batch, shares, strict=True)
    ]
    return pl.DataFrame(rows, schema=pl.DataFrame(P_TRUE.empty_table()).schema, orient="row").sort("id")


@torch.no_grad()
def _p_yes(batch: Sequence[_Prompt], language_model: LanguageModel, verdicts: OptionTokens) -> list[float]:
    lengths = torch.tensor([len(prompt.ids) for prompt in batch])
    # Padded on the right, where a causal model never looks, so positions are those of the prompt alone.
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(prompt.ids) for prompt in batch], batch_first=True)
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    last, place = torch.unique(lengths - 1, return_inverse=True)  # only there logits are made
    device = language_model.device
    inputs = {"input_ids": ids.to(device), "attention_mask": mask.long().to(device), "use_cache": False}
    logits = language_model.model(**inputs, logits_to_keep=last.to(device)).logits.cpu()  # [B, different lengths, V]
    own = logits[torch.arange(len(batch)), place][:, list(verdicts.options)].softmax(-1, torch.float32)
    is_yes = torch.tensor([option == 0 for option in verdicts.options.values()])
    return own[:, is_yes].sum(1).tolist()
