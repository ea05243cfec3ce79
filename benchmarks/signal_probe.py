"""What one step of distillation on a question would do to near questions, to first order.

A step along the gradient of one question's loss changes another's by minus the learning rate times the inner product of
their gradients. Taken here for the weights of the model's head alone and KL(teacher, student), whose gradient is the
mean over response tokens of (student's - teacher's probabilities) x last hidden state: two forward passes per response
and no backward pass. Vocabularies of more than ``SKETCHED`` tokens are projected at random (inner products are kept
on average; Johnson and Lindenstrauss, 1984).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import torch
from tqdm import tqdm

from pipeline.models import LanguageModel, encode_chat
from pipeline.prompts import render_teacher_prompt

SKETCHED = 256
N_RESPONSES = 2
"""Responses of each question that are looked at, the first ones."""


@torch.no_grad()
def gradients(rollouts: pl.DataFrame, contexts: Mapping[str, str], language_model: LanguageModel) -> np.ndarray:
    """Return the gradient of each question, sorted by id, of rows of schema ROLLOUTS: ``[n, V (sketched) x D]``."""
    model, rng = language_model.model, torch.Generator().manual_seed(0)
    n_tokens, width = model.get_output_embeddings().weight.shape
    sketch = torch.eye(n_tokens)
    if n_tokens > SKETCHED:
        sketch = torch.randn(n_tokens, SKETCHED, generator=rng) / SKETCHED**0.5
    asked = rollouts.filter(pl.col("sample") < N_RESPONSES).sort("id", "sample")
    groups = asked.select("id", "prompt", "prompt_ids", "response_ids").partition_by("id", maintain_order=True)
    found = np.zeros((len(groups), sketch.shape[1] * width), dtype=np.float32)
    for row, rows in enumerate(tqdm(groups, desc="gradients", mininterval=5)):
        for key, prompt, prompt_ids, response_ids in rows.iter_rows():
            if response_ids:
                told = encode_chat(language_model.tokenizer, render_teacher_prompt(contexts[key], prompt))
                student, hidden = _read(model, prompt_ids, response_ids)
                teacher, _ = _read(model, told, response_ids)
                step = ((student - teacher) @ sketch).T @ hidden / len(response_ids)
                found[row] += step.flatten().numpy() / len(rows)
    return found


def _read(model: torch.nn.Module, prompt: Sequence[int], response: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the probabilities ``[T, V]`` from which the response was drawn, and the last hidden states ``[T, D]``."""
    ids = torch.tensor([[*prompt, *response]])
    read = model(input_ids=ids, output_hidden_states=True, use_cache=False, logits_to_keep=len(response) + 1)
    hidden = read.hidden_states[-1][0, -len(response) - 1 : -1].float()
    return read.logits[0, :-1].softmax(-1, torch.float32), hidden
