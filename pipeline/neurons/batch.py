"""One batch of rollouts through the backbone: which neurons carry each, and how large their support is.

One forward pass over prompt and response, without logits; contributions are computed and cut while the layers run,
those to a question's stem beside those to the response. Rows are padded on the right, where causal attention keeps
padding from every token that is scored.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.neurons.architecture import MlpStack
from pipeline.neurons.collector import collect_activations, collect_residual
from pipeline.neurons.config import NeuronScoresConfig
from pipeline.neurons.reading import Reading, Span
from pipeline.neurons.rollout import Rollout
from pipeline.neurons.sizes import SupportSizes
from pipeline.neurons.topk import Kept, Sets


@dataclass(frozen=True)
class StemScores:
    """What the same pass says of ``Q`` questions, by their stems."""

    rows: Tensor
    """Rollout of the batch that each stem is read with, ``[Q]``, ascending."""
    kept: Kept
    """Neurons of each stem's set, owned by their rollout, with their scores."""
    states: Tensor
    """Mean over the stem's tokens of the hidden state that leaves the last layer, before the final norm, ``[Q, D]``."""
    finite: Tensor
    """Whether all that was computed for a stem is a finite number, ``[Q]``."""


@dataclass(frozen=True)
class BatchScores:
    """What one forward pass says of ``R`` rollouts."""

    sets: Sets
    """Neurons of each response and of its rationale, with their scores."""
    sizes: SupportSizes
    """Sums over all positive contributions to a response."""
    displacement: Tensor
    """Mean distance of the hidden state from first layer in to last layer out over root d_model, ``[R]``."""
    stems: StemScores
    """What it says of the stems, each read with its question's sample 0."""

    @property
    def finite(self) -> Tensor:
        """Whether all that was computed for a rollout is a finite number, ``[R]``."""
        return self.sizes.finite & self.displacement.isfinite()


def pad_right(sequences: Sequence[Sequence[int]]) -> Tensor:
    """Return token ids ``[B, S]``, each row filled up with its own last token, so that it reads no other embedding.

    Masked attention multiplies padding by 0, which is no remedy for an embedding that is not a number.
    """
    width = max(map(len, sequences))
    return torch.tensor([[*sequence, *[sequence[-1]] * (width - len(sequence))] for sequence in sequences])


@torch.inference_mode()
def score_batch(batch: Sequence[Rollout], stack: MlpStack, config: NeuronScoresConfig) -> BatchScores:
    """Run the backbone on rollouts of at least one prompt and one response token each."""
    device = stack.W_U.device
    tokens = pad_right([[*rollout.prompt_ids, *rollout.response_ids] for rollout in batch]).to(device)
    spans = [span for row, rollout in enumerate(batch) if (span := _stem(row, rollout, len(stack.W_U)))]
    responses = Reading([_response(row, rollout) for row, rollout in enumerate(batch)], tokens, stack, config)
    stems = Reading(spans, tokens, stack, config)
    displacement = torch.zeros(len(batch), dtype=torch.float64, device=device)
    states = torch.zeros(len(spans), stack.W_U.shape[1], device=device)

    def consume(layer: int, activations: Tensor) -> None:
        W_down = stack.W_down[layer].float()
        for reading in (responses, stems) if spans else (responses,):
            reading.add(layer, activations.reshape(-1, stack.d_mlp), W_down)

    def measure(entered: Tensor, left: Tensor) -> None:
        start, end = (hidden.flatten(0, 1)[responses.positions.reads].float() for hidden in (entered, left))
        distance = (end - start).square().mean(dim=1).sqrt()
        displacement.copy_(responses.mean(distance.double()))
        states.copy_(stems.mean(left.flatten(0, 1)[stems.positions.tokens].float()))

    with collect_activations(stack, config.unit, consume), collect_residual(stack, measure):
        stack.backbone(input_ids=tokens, use_cache=False)
    rows = torch.tensor([span.row for span in spans], dtype=torch.int64, device=device)
    kept = stems.cut.result().whole
    kept = Kept(rows[kept.owners], kept.neurons, kept.scores)
    finite = stems.sizes.finite & states.isfinite().all(dim=1)
    return BatchScores(responses.cut.result(), responses.sizes, displacement, StemScores(rows, kept, states, finite))


def _response(row: int, rollout: Rollout) -> Span:
    """Return where a rollout's response stands in its row."""
    start = len(rollout.prompt_ids)
    if rollout.answer_start is None or rollout.answer_stop is None:
        return Span(row, start, rollout.n_tokens)
    return Span(row, start, rollout.n_tokens, start + rollout.answer_start, start + rollout.answer_stop)


def _stem(row: int, rollout: Rollout, n_outputs: int) -> Span | None:
    """Return where the question's stem stands in a row; None unless it is known and this is sample 0.

    So a question's stem is read once, whatever the shards. The first token of a sequence is left out, as no position
    precedes it; a stem with a token that the model cannot say is left out whole.
    """
    if rollout.sample or rollout.stem_start is None or rollout.stem_stop is None:
        return None
    span = Span(row, max(rollout.stem_start, 1), rollout.stem_stop)
    said = rollout.prompt_ids[span.start : span.stop]
    return span if said and max(said) < n_outputs else None
