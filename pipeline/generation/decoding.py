"""The loop that samples a batch: prompts that are alike run once, and rows that have ended leave the batch.

After the first step, the cache of each prompt is repeated for its rows. A model that returns no ``DynamicCache``
(Mamba, RWKV, MiniMax, the first GPT) falls back: each row runs its own tokens, prompt included, at every step. Pinned
by ``tests/generation/test_transformers.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from pipeline.generation.cache import close_up, make_room
from pipeline.generation.seeded import SeededDraw
from pipeline.ledger.meter import count_tokens


@dataclass
class _Rows:
    """Tokens so far ``[B, S]``, padded on the left, where they stand, and the cache of all but the last of them."""

    tokens: Tensor
    mask: Tensor
    cache: DynamicCache | None = None

    def select(self, rows: Tensor) -> None:
        """Make these rows ``[R]`` the batch; a row may be taken more than once."""
        self.tokens, self.mask = self.tokens[rows], self.mask[rows]
        if self.cache is not None:
            self.cache.reorder_cache(rows)  # batch_repeat_interleave of transformers 5.23 leaves states out

    def append(self, tokens: Tensor) -> None:
        """Add the next token of each row, ``[B]``."""
        self.tokens = torch.cat([self.tokens, tokens[:, None]], 1)
        self.mask = torch.cat([self.mask, torch.ones_like(tokens)[:, None]], 1)


@torch.inference_mode()
def decode(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], draw: SeededDraw, stop_ids: Sequence[int], renewal: int
) -> Tensor:
    """Return the tokens ``[B, T]`` that ``draw`` draws for each prompt, T its limit; what follows an end is undefined.

    Args:
        model: In evaluation mode.
        prompts: Token ids of each row's prompt, not empty.
        draw: Its rows are the prompts.
        stop_ids: Tokens that end a response.
        renewal: Tokens, padding included, beyond which a cache of fewer tokens does not hold.
    """
    alike = {prompt: i for i, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
    width, device = max(map(len, alike)), model.device
    batch = _Rows(
        torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in alike], device=device),
        torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in alike], device=device),
    )
    stops, rows = torch.tensor(stop_ids, dtype=torch.long, device=device), torch.arange(len(prompts), device=device)
    responses = torch.zeros(draw.logprobs.shape, dtype=torch.long, device=device)
    for step in range(responses.shape[1]):
        if batch.tokens.shape[1] == renewal + 1:
            batch.cache = None
        logits = _next_logits(model, batch, n_more=responses.shape[1] - step)
        if step == 0:
            own = torch.tensor([alike[tuple(prompt)] for prompt in prompts], device=device)
            batch.select(own)
            logits = logits[own]
        tokens = draw(logits, rows, step)
        responses[rows, step] = tokens
        batch.append(tokens)
        going_on = ~torch.isin(tokens, stops)
        if not going_on.all():
            staying = close_up(going_on)
            if not len(staying):
                break
            rows = rows[staying]
            batch.select(staying)
    return responses


def _next_logits(model: PreTrainedModel, batch: _Rows, n_more: int) -> Tensor:
    """Run what the cache does not hold, and return the last token's logits ``[B, V]``; ``n_more`` tokens may follow."""
    start = 0 if batch.cache is None else batch.tokens.shape[1] - 1
    settings = {
        "position_ids": (batch.mask.cumsum(-1) - 1).clamp_(min=0)[:, start:],
        "past_key_values": batch.cache,
        "use_cache": True,
        "logits_to_keep": 1,
    }
    known = signature(model.forward).parameters
    outputs = model(
        input_ids=batch.tokens[:, start:],
        attention_mask=batch.mask,
        **{name: value for name, value in settings.items() if name in known},
    )
    cache = getattr(outputs, "past_key_values", None)
    batch.cache = cache if type(cache) is DynamicCache else None  # a subclass may hold what is not reordered
    if not start:
        count_tokens(read=int(batch.mask.sum()))
        if batch.cache is not None:
            make_room(batch.cache, n_more)
    return outputs.logits[:, -1].clone()  # a view would keep the logits of whole prompts
