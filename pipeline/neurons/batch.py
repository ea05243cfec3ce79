"""One batch of rollouts through the backbone: which neurons carry each, and how large their support is.

Forward passes without logits; contributions are computed and cut while the layers run, those to a question's stem
beside them. Rows are padded on the right, where causal attention keeps padding from every token that is scored; but
shared prompts on the left, since sliding windows count columns of the cache, padding between prompt and response too.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from pipeline.ledger.meter import count_tokens
from pipeline.neurons.architecture import MlpStack
from pipeline.neurons.collector import collect_activations, collect_residual
from pipeline.neurons.config import NeuronScoresConfig
from pipeline.neurons.reading import Reading, Span
from pipeline.neurons.rollout import Rollout

_ALIKE: Final = 0.75
"""Responses shorter than this share of the longest are run apart from it, with less padding."""


def can_share_prompts(stack: MlpStack) -> bool:
    """Return whether the model's cache holds nothing but keys and values, which are masked where they are padding.

    The states of linear attention and of state spaces have taken in the padding before them.
    """
    config: Any = stack.backbone.config
    return {type(layer) for layer in DynamicCache(config=config).layers} <= {DynamicLayer, DynamicSlidingWindowLayer}


def pad_right(sequences: Sequence[Sequence[int]]) -> Tensor:
    """Return token ids ``[B, S]``, each row filled up with its own last token, so that it reads no other embedding.

    Masked attention multiplies padding by 0, which is no remedy for an embedding that is not a number.
    """
    width = max(map(len, sequences))
    return torch.tensor([[*sequence, *[sequence[-1]] * (width - len(sequence))] for sequence in sequences])


@torch.inference_mode()
def score_apart(batch: Sequence[Rollout], stack: MlpStack, config: NeuronScoresConfig) -> tuple[list[Reading], Reading]:
    """Run every rollout whole, of at least one prompt and one response token each.

    Returns readings of the responses, which hold each rollout once, and one of the stems.
    """
    tokens = pad_right([[*rollout.prompt_ids, *rollout.response_ids] for rollout in batch]).to(stack.W_U.device)
    stems = _stems(batch, [(row, 0) for row in range(len(batch))], tokens, stack, config)
    responses = _responses(batch, [len(rollout.prompt_ids) for rollout in batch], tokens, stack, config)
    _run([responses, stems], stack, config, input_ids=tokens)
    count_tokens(read=sum(rollout.n_tokens for rollout in batch))
    return [responses], stems


@torch.inference_mode()
def score_shared(
    batch: Sequence[Rollout], stack: MlpStack, config: NeuronScoresConfig
) -> tuple[list[Reading], Reading]:
    """Do the same, but run each different prompt once and go on from its cache.

    A prompt's last token is run with the response, whose first token is predicted there: prompts have two tokens at
    least, and no stem holds the last.
    """
    device = stack.W_U.device
    prompts = {prompt: row for row, prompt in enumerate(dict.fromkeys(map(_before_response, batch)))}
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)[:, None]
    tokens = pad_right([prompt[::-1] for prompt in prompts]).flip(1).to(device)
    width = tokens.shape[1]
    mask = torch.arange(width, device=device) >= width - lengths
    places = [(prompts[prompt], width - len(prompt)) for prompt in map(_before_response, batch)]
    stems = _stems(batch, places, tokens, stack, config)
    positions = (torch.arange(width, device=device) - (width - lengths)).clamp(min=0)
    cache = DynamicCache()  # without a config it keeps what has left a sliding window, so that any row can go on
    _run([stems], stack, config, input_ids=tokens, attention_mask=mask, position_ids=positions, past_key_values=cache)
    count_tokens(read=sum(map(len, prompts)) + sum(1 + len(rollout.response_ids) for rollout in batch))
    responses = []
    for rollouts in _alike(batch):
        rows = torch.tensor([prompts[_before_response(rollout)] for rollout in rollouts], device=device)
        tokens = pad_right([[rollout.prompt_ids[-1], *rollout.response_ids] for rollout in rollouts]).to(device)
        columns = torch.arange(tokens.shape[1], device=device)
        last = torch.tensor([[len(rollout.response_ids)] for rollout in rollouts], device=device)
        responses.append(_responses(rollouts, [1] * len(rollouts), tokens, stack, config))
        _run(
            responses[-1:],
            stack,
            config,
            input_ids=tokens,
            attention_mask=torch.cat([mask[rows], columns <= last], dim=1),
            position_ids=lengths[rows] + columns.minimum(last),
            past_key_values=_rows(cache, rows),
        )
    return responses, stems


def _before_response(rollout: Rollout) -> tuple[int, ...]:
    return tuple(rollout.prompt_ids[:-1])


def _alike(batch: Sequence[Rollout]) -> Iterator[list[Rollout]]:
    """Yield rollouts whose responses are of like length, the longest first."""
    left = sorted(batch, key=_n_response_tokens)
    while left:
        start = bisect_left(left, _ALIKE * _n_response_tokens(left[-1]), key=_n_response_tokens)
        yield left[start:]
        left = left[:start]


def _n_response_tokens(rollout: Rollout) -> int:
    return len(rollout.response_ids)


def _rows(cache: DynamicCache, rows: Tensor) -> DynamicCache:
    """Return some rows of a cache, in which it is left as it is."""
    chosen = copy(cache)
    chosen.layers = [copy(layer) for layer in cache.layers]
    chosen.batch_select_indices(rows)
    return chosen


def _run(readings: Sequence[Reading], stack: MlpStack, config: NeuronScoresConfig, **inputs: Any) -> None:
    """Run the backbone once, for some readings."""
    readings = [reading for reading in readings if reading.rollouts]

    def consume(layer: int, activations: Tensor) -> None:
        W_down = stack.W_down[layer].float()
        for reading in readings:
            reading.add(layer, activations.reshape(-1, stack.d_mlp), W_down)

    def measure(entered: Tensor, left: Tensor) -> None:
        for reading in readings:
            reading.measure(entered.flatten(0, 1), left.flatten(0, 1))

    with collect_activations(stack, config.unit, consume), collect_residual(stack, measure), _exact_attention(stack):
        stack.backbone(**inputs, use_cache="past_key_values" in inputs)


def _exact_attention(stack: MlpStack) -> AbstractContextManager[None]:
    """Make attention of low precision round alike in all batches, which torch's fused kernels do not.

    With shared prompts and without, sets in bfloat16 then overlap by 1 instead of 0.989 on a processor (SmolLM2-135M,
    torch 2.13), and instead of 0.982 on an H200 (random weights of Qwen3-0.6B's shape, torch 2.11).
    """
    return nullcontext() if stack.W_U.dtype == torch.float32 else sdpa_kernel(SDPBackend.MATH)


def _responses(
    rollouts: Sequence[Rollout], starts: Sequence[int], tokens: Tensor, stack: MlpStack, config: NeuronScoresConfig
) -> Reading:
    """Read the response of each row of ``tokens [R, S]``, which begins at a column of ``starts``."""
    spans = [
        Span(row, start, start + len(rollout.response_ids), start + stated[0], start + stated[1])
        for row, (rollout, start) in enumerate(zip(rollouts, starts, strict=True))
        for stated in [(rollout.answer_start or 0, rollout.answer_stop or 0)]
    ]
    return Reading(rollouts, spans, tokens, stack, config)


def _stems(
    batch: Sequence[Rollout],
    places: Sequence[tuple[int, int]],
    tokens: Tensor,
    stack: MlpStack,
    config: NeuronScoresConfig,
) -> Reading:
    """Read the stems of the questions whose sample 0 is in the batch; ``places`` are row and first column of prompts.

    So a question's stem is read once, whatever the shards. The first token of a sequence is left out, as no position
    precedes it; a stem with a token that the model cannot say is left out whole.
    """
    found = {}
    for rollout, (row, column) in zip(batch, places, strict=True):
        if rollout.sample or rollout.stem_start is None or rollout.stem_stop is None:
            continue
        start, stop = max(rollout.stem_start, 1), rollout.stem_stop
        if max(rollout.prompt_ids[start:stop], default=len(stack.W_U)) < len(stack.W_U):
            found[rollout.row] = (rollout, Span(row, column + start, column + stop))
    return Reading([r for r, _ in found.values()], [s for _, s in found.values()], tokens, stack, config)
