"""Reading some tokens of a batch while the layers run: responses, and the stems of questions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.neurons.architecture import MlpStack
from pipeline.neurons.config import NeuronScoresConfig
from pipeline.neurons.contribution import contributions, read_positions, token_alignment, unembedding_rows
from pipeline.neurons.rollout import Rollout
from pipeline.neurons.sizes import SupportSizes
from pipeline.neurons.topk import Chunk, Sets, make_cut


class Span(NamedTuple):
    """Consecutive tokens of one row of a padded batch, of which some may state an answer; positions within the row."""

    row: int
    """Row of the batch."""
    start: int
    """First position; at least 1, as nothing predicts the first token of a sequence."""
    stop: int
    """Position after the last; beyond ``start``."""
    stated_start: int = 0
    """First position that states the answer."""
    stated_stop: int = 0
    """Position after the last that does."""


@dataclass(frozen=True)
class Positions:
    """Where a flattened batch of padded sequences ``[B * S]`` is read for some of the tokens of its spans."""

    tokens: Tensor
    """Position of the token, ``[N]``."""
    reads: Tensor
    """Position of the activation, ``[N]``."""
    rows: Tensor
    """Row of the token among the different tokens of all spans, ``[N]``."""
    owners: Tensor
    """Span, ``[N]``, ascending."""
    stated: Tensor
    """Whether the token states the answer, ``[N]``."""

    def where(self, chosen: Tensor) -> "Positions":
        """Return the positions that a mask ``[N]`` chooses."""
        return Positions(*(values[chosen] for values in vars(self).values()))


class Reading:
    """A span of each of R rollouts, and what one forward pass over a batch says of them."""

    def __init__(
        self,
        rollouts: Sequence[Rollout],
        spans: Sequence[Span],
        tokens: Tensor,
        stack: MlpStack,
        config: NeuronScoresConfig,
    ) -> None:
        """Locate the rollouts' spans in padded ``tokens [B, S]``."""
        said, self._positions, self._chunks = _locate(spans, tokens, config)
        self._rows = unembedding_rows(stack.W_U, said)
        self._cut = make_cut(config, len(spans), tokens.device)
        self.rollouts = rollouts
        self.sizes = SupportSizes(len(spans), stack.n_layers, tokens.device)
        """Sums over all positive contributions to a span."""
        self.displacement = torch.zeros(len(spans), dtype=torch.float64, device=tokens.device)
        """Mean distance of the hidden state from first layer in to last layer out over root d_model, ``[R]``."""
        self.states = torch.zeros(len(spans), stack.W_U.shape[1], device=tokens.device)
        """Mean over the tokens of the hidden state that leaves the last layer, before the final norm, ``[R, D]``."""

    @property
    def sets(self) -> Sets:
        """Neurons of each span, and of what states no answer in it, with their scores."""
        return self._cut.result()

    def add(self, layer: int, activations: Tensor, W_down: Tensor) -> None:
        """Take in a layer's activations ``[B * S, M]``; ``W_down [D, M]`` is its down projection."""
        alignment = token_alignment(self._rows, W_down)
        self._cut.add_layer(layer, self._contributions(layer, activations, alignment))

    def measure(self, entered: Tensor, left: Tensor) -> None:
        """Take in the hidden states ``[B * S, D]`` that enter the first layer and leave the last one."""
        start, end = (hidden[self._positions.reads].float() for hidden in (entered, left))
        self.displacement = self._mean((end - start).square().mean(dim=1).sqrt().double())
        self.states = self._mean(left[self._positions.tokens].float())

    def _contributions(self, layer: int, activations: Tensor, alignment: Tensor) -> Iterator[Chunk]:
        """Yield a layer's contributions from activations and alignment ``[U, M]``, counting their sizes."""
        for part in self._chunks:
            # On a processor index_select takes a third of the time that indexing takes.
            read, aligned = activations.index_select(0, part.reads), alignment.index_select(0, part.rows)
            chunk = Chunk(contributions(read, aligned).clamp_(min=0), part.owners, part.stated)
            self.sizes.add(layer, chunk)
            yield chunk

    def _mean(self, values: Tensor) -> Tensor:
        """Return the mean over the tokens of each span, ``[R, ...]``, of ``values [N, ...]`` at all positions."""
        owners, n_spans = self._positions.owners, len(self.rollouts)
        totals = values.new_zeros(n_spans, *values.shape[1:]).index_add_(0, owners, values)
        return totals.div_(owners.bincount(minlength=n_spans).reshape(-1, *[1] * (values.dim() - 1)))


def _locate(
    spans: Sequence[Span], tokens: Tensor, config: NeuronScoresConfig
) -> tuple[Tensor, Positions, list[Positions]]:
    """Return the different tokens ``[U]`` of spans of padded ``tokens [B, S]``, all positions, and those by chunk."""
    device, width = tokens.device, tokens.shape[1]
    located = torch.tensor(spans, dtype=torch.int64, device=device).reshape(len(spans), len(Span._fields))
    row, start, stop, stated_start, stated_stop = located.unbind(1)
    owners = torch.arange(len(spans), device=device).repeat_interleave(stop - start)
    within = torch.arange(len(owners), device=device) - ((stop - start).cumsum(0) - (stop - start))[owners]
    in_row = start[owners] + within
    positions = row[owners] * width + in_row
    said, rows = tokens.flatten()[positions].unique(return_inverse=True)
    stated = (in_row >= stated_start[owners]) & (in_row < stated_stop[owners])
    everywhere = Positions(positions, read_positions(positions, config.position), rows, owners, stated)
    longest = max((span.stop - span.start for span in spans), default=0)
    chunk_starts = range(0, longest, config.chunk_tokens)
    chunks = [everywhere.where((within >= at) & (within < at + config.chunk_tokens)) for at in chunk_starts]
    return said, everywhere, chunks
