"""One batch of rollouts through the backbone: which neurons carry each, and how large their support is.

One forward pass over prompt and response, without logits; contributions are computed and cut while the layers run.
Rows are padded on the right, where causal attention keeps padding from every token that is scored.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.config import NeuronScoresConfig
from pipeline.neurons.architecture import MlpStack
from pipeline.neurons.collector import collect_activations, collect_residual
from pipeline.neurons.contribution import contributions, read_positions, token_alignment, unembedding_rows
from pipeline.neurons.rollout import Rollout
from pipeline.neurons.sizes import SupportSizes
from pipeline.neurons.topk import Chunk, Kept, make_cut


@dataclass(frozen=True)
class BatchScores:
    """What one forward pass says of ``R`` rollouts."""

    kept: Kept
    """Neurons of each rollout's set, with their scores."""
    sizes: SupportSizes
    """Sums over all positive contributions."""
    displacement: Tensor
    """Mean distance of the hidden state from first layer in to last layer out over root d_model, ``[R]``."""

    @property
    def finite(self) -> Tensor:
        """Whether all that was computed for a rollout is a finite number, ``[R]``."""
        return self.sizes.finite & self.displacement.isfinite()


@dataclass(frozen=True)
class Positions:
    """Where a flattened batch of padded sequences ``[B * S]`` is read for some of its response tokens."""

    reads: Tensor
    """Position of the activation, ``[N]``."""
    rows: Tensor
    """Row of the token among the batch's different response tokens, ``[N]``."""
    owners: Tensor
    """Rollout, ``[N]``, ascending."""


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
    said, everywhere, chunks = _locate(batch, tokens, config)
    rows = unembedding_rows(stack.W_U, said)
    cut = make_cut(config, len(batch), device)
    sizes = SupportSizes(len(batch), stack.n_layers, device)
    displacement = torch.zeros(len(batch), dtype=torch.float64, device=device)

    def consume(layer: int, activations: Tensor) -> None:
        alignment = token_alignment(rows, stack.W_down[layer])
        cut.add_layer(layer, _contributions(activations.reshape(-1, stack.d_mlp), alignment, chunks, (layer, sizes)))

    def measure(entered: Tensor, left: Tensor) -> None:
        start, end = (states.flatten(0, 1)[everywhere.reads].float() for states in (entered, left))
        distance = (end - start).square().mean(dim=1).sqrt()
        displacement.index_add_(0, everywhere.owners, distance.double()).div_(everywhere.owners.bincount())

    with collect_activations(stack, config.unit, consume), collect_residual(stack, measure):
        stack.backbone(input_ids=tokens, use_cache=False)
    return BatchScores(cut.result(), sizes, displacement)


def _locate(
    batch: Sequence[Rollout], tokens: Tensor, config: NeuronScoresConfig
) -> tuple[Tensor, Positions, list[Positions]]:
    """Return the different response tokens ``[U]`` of padded ``tokens [B, S]``, all positions, and those by chunk."""
    device, width = tokens.device, tokens.shape[1]
    lengths = torch.tensor([len(rollout.response_ids) for rollout in batch], device=device)
    starts = torch.tensor([i * width + len(rollout.prompt_ids) for i, rollout in enumerate(batch)], device=device)
    owners = torch.arange(len(batch), device=device).repeat_interleave(lengths)
    within = torch.arange(len(owners), device=device) - (lengths.cumsum(0) - lengths)[owners]
    positions = starts[owners] + within
    said, rows = tokens.flatten()[positions].unique(return_inverse=True)
    reads = read_positions(positions, config.position)
    chunks = []
    for start in range(0, int(lengths.max()), config.chunk_tokens):
        inside = (within >= start) & (within < start + config.chunk_tokens)
        chunks.append(Positions(reads[inside], rows[inside], owners[inside]))
    return said, Positions(reads, rows, owners), chunks


def _contributions(
    activations: Tensor, alignment: Tensor, chunks: Sequence[Positions], measured: tuple[int, SupportSizes]
) -> Iterator[Chunk]:
    """Yield a layer's contributions from activations ``[B * S, M]`` and alignment ``[U, M]``, counting their sizes."""
    layer, sizes = measured
    for part in chunks:
        chunk = Chunk(contributions(activations[part.reads], alignment[part.rows]), part.owners)
        sizes.add(layer, chunk)
        yield chunk
