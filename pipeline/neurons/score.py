"""Stage ``neuron_scores``: run each rollout through the model once more and keep the neurons that carry its tokens.

One pass of the backbone over prompt and response, without logits; contributions are computed and cut while the layers
run. Rows are padded on the right, where causal attention keeps padding from every token that is scored. Every rollout
comes back, in order of (tokens, id, sample), and neither the batch budget nor the other rows change a row beyond the
rounding of the forward pass itself. Pinned by ``tests/neurons/test_score.py``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from pipeline.config import NeuronScoresConfig
from pipeline.errors import ArtifactError, ModelError
from pipeline.models import LanguageModel
from pipeline.neurons.architecture import MlpStack, find_mlp_stack
from pipeline.neurons.collector import collect_activations
from pipeline.neurons.contribution import contributions, read_positions, token_alignment, unembedding_rows
from pipeline.neurons.sizes import SupportSizes
from pipeline.neurons.topk import Chunk, Kept, make_cut

Tables = tuple[pl.DataFrame, pl.DataFrame]


@dataclass(frozen=True)
class Scored:
    """A rollout to score."""

    id: str
    """Question."""
    sample: int
    """Number of the rollout within its question."""
    prompt_ids: Sequence[int]
    """Tokens of the rendered prompt."""
    response_ids: Sequence[int]
    """Response tokens, the end token included."""
    mean_logprob: float
    """Mean log-probability of the response tokens (nats); 0 without response."""

    @property
    def n_tokens(self) -> int:
        """Length of prompt and response (tokens)."""
        return len(self.prompt_ids) + len(self.response_ids)


@dataclass(frozen=True)
class ResponseSlice:
    """One chunk of response positions of every rollout in a batch that is long enough to have it."""

    reads: Tensor
    """Where activations are read, ``[N]``, in the flattened batch of padded sequences."""
    rows: Tensor
    """Row of each position's token among the batch's different response tokens, ``[N]``."""
    owners: Tensor
    """Rollout of each position, ``[N]``, ascending."""


def score_rollouts(
    rollouts: pl.DataFrame, language_model: LanguageModel, config: NeuronScoresConfig, progress: bool = True
) -> Iterator[Tables]:
    """Yield rows of the ``neuron_scores`` and of the ``neuron_sizes`` schema for rows of ``rollouts``, batch by batch.

    A rollout without response tokens yields an empty set and zero sizes. A batch that exceeds the CUDA memory is
    halved. Raises UnsupportedModelError for a model whose neurons cannot be scored, ArtifactError for a rollout
    without prompt, and ModelError when one rollout alone exceeds the memory or contributions are not finite.
    """
    stack = find_mlp_stack(language_model.model)
    pending = _plan(_read(rollouts), config.batch_tokens)[::-1]
    with tqdm(total=len(rollouts), desc="neuron scores", unit="rollout", mininterval=1, disable=not progress) as bar:
        while pending:
            batch = pending.pop()
            tables = _score_if_it_fits(batch, stack, config)
            if tables is None:
                pending += [batch[len(batch) // 2 :], batch[: len(batch) // 2]]
                continue
            yield tables
            bar.update(len(batch))


def _read(rollouts: pl.DataFrame) -> list[Scored]:
    columns = rollouts.select(
        "id", "sample", "prompt_ids", "response_ids", mean_logprob=pl.col("logprobs").list.mean().fill_null(0.0)
    )
    rows = [Scored(**row) for row in columns.iter_rows(named=True)]
    for row in rows:
        if row.response_ids and not row.prompt_ids:
            raise ArtifactError(f"rollouts: question '{row.id}', sample {row.sample} has no prompt: sample it again")
    return sorted(rows, key=lambda row: (row.n_tokens, row.id, row.sample))


def _plan(ordered: Sequence[Scored], batch_tokens: int) -> list[list[Scored]]:
    """Split rollouts, shortest first, into batches of at most ``batch_tokens`` padded tokens, or of one rollout.

    Those without response come first, in a batch of their own that needs no forward pass.
    """
    silent = [row for row in ordered if not row.response_ids]
    batches: list[list[Scored]] = []
    for row in (row for row in ordered if row.response_ids):
        if batches and (len(batches[-1]) + 1) * row.n_tokens <= batch_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return [silent, *batches] if silent else batches


def _score_if_it_fits(batch: Sequence[Scored], stack: MlpStack, config: NeuronScoresConfig) -> Tables | None:
    """Score one batch, or return None when it exceeds the device's memory and can be made smaller."""
    try:
        return score_batch(batch, stack, config)
    except torch.OutOfMemoryError as error:
        if len(batch) == 1:
            raise ModelError(
                f"question '{batch[0].id}', sample {batch[0].sample}: out of memory with one rollout of "
                f"{batch[0].n_tokens} tokens: lower neuron_scores.chunk_tokens or use a larger device"
            ) from error
    torch.cuda.empty_cache()  # only after the handler, whose traceback holds the batch's tensors
    return None


@torch.inference_mode()
def score_batch(batch: Sequence[Scored], stack: MlpStack, config: NeuronScoresConfig) -> Tables:
    """Score one batch in one forward pass; raises ModelError when contributions are not finite."""
    device = stack.W_U.device
    cut, sizes = make_cut(config, len(batch), device), SupportSizes(len(batch), device)
    if any(row.response_ids for row in batch):
        ids = [torch.tensor([*row.prompt_ids, *row.response_ids]) for row in batch]
        tokens = pad_sequence(ids, batch_first=True).to(device)
        said, slices = _response_slices(batch, tokens, config)
        rows = unembedding_rows(stack.W_U, said)

        def consume(layer: int, activations: Tensor) -> None:
            alignment = token_alignment(rows, stack.W_down[layer])
            cut.add_layer(layer, _chunks(activations.reshape(-1, stack.d_mlp), alignment, slices, sizes))

        with collect_activations(stack, config.unit, consume):
            stack.backbone(input_ids=tokens, use_cache=False)
    for row, finite in zip(batch, sizes.totals.isfinite().all(dim=1).tolist(), strict=True):
        if not finite:
            raise ModelError(
                f"question '{row.id}', sample {row.sample}: contributions are not finite in {stack.W_U.dtype}: "
                "set model.dtype to float32 or bfloat16"
            )
    return _tables(batch, cut.result(), sizes, stack, config)


def _response_slices(
    batch: Sequence[Scored], tokens: Tensor, config: NeuronScoresConfig
) -> tuple[Tensor, list[ResponseSlice]]:
    """Return the different response tokens ``[U]`` of padded ``tokens [B, S]``, and the positions chunk by chunk."""
    device, width = tokens.device, tokens.shape[1]
    lengths = torch.tensor([len(row.response_ids) for row in batch], device=device)
    starts = torch.tensor([i * width + len(row.prompt_ids) for i, row in enumerate(batch)], device=device)
    owners = torch.arange(len(batch), device=device).repeat_interleave(lengths)
    within = torch.arange(len(owners), device=device) - (lengths.cumsum(0) - lengths)[owners]
    positions = starts[owners] + within
    said, rows = tokens.flatten()[positions].unique(return_inverse=True)
    reads = read_positions(positions, config.position)
    slices = []
    for start in range(0, int(lengths.max()), config.chunk_tokens):
        inside = (within >= start) & (within < start + config.chunk_tokens)
        slices.append(ResponseSlice(reads[inside], rows[inside], owners[inside]))
    return said, slices


def _chunks(
    activations: Tensor, alignment: Tensor, slices: Sequence[ResponseSlice], sizes: SupportSizes
) -> Iterator[Chunk]:
    """Yield a layer's contributions from activations ``[B * S, M]`` and alignment ``[U, M]``, counting their sizes."""
    for part in slices:
        chunk = Chunk(contributions(activations[part.reads], alignment[part.rows]), part.owners)
        sizes.add(chunk)
        yield chunk


def _tables(
    batch: Sequence[Scored], kept: Kept, sizes: SupportSizes, stack: MlpStack, config: NeuronScoresConfig
) -> Tables:
    n_layers = stack.n_layers
    counts = torch.bincount(kept.owners, minlength=len(batch))
    per_layer = torch.bincount(kept.owners * n_layers + kept.neurons // stack.d_mlp, minlength=len(batch) * n_layers)
    scores = kept.scores.half().float() if config.score_dtype == "float16" else kept.scores
    key = {"id": [row.id for row in batch], "sample": pl.Series([row.sample for row in batch], dtype=pl.Int32)}
    neuron_scores = pl.DataFrame(
        {**key, "neurons": _as_lists(kept.neurons.int(), counts), "scores": _as_lists(scores, counts)}
    )
    neuron_sizes = pl.DataFrame(
        {
            **key,
            "n_neurons": counts.int().numpy(force=True),
            "n_response_tokens": pl.Series([len(row.response_ids) for row in batch], dtype=pl.Int32),
            "score_sum": sizes.score_sum.numpy(force=True),
            "participation_ratio": sizes.participation_ratio.numpy(force=True),
            "entropy_size": sizes.entropy_size.numpy(force=True),
            "mean_logprob": pl.Series([row.mean_logprob for row in batch], dtype=pl.Float64),
            "layer_counts": _as_lists(per_layer.int(), torch.full_like(counts, n_layers)),
        }
    )
    return neuron_scores, neuron_sizes


def _as_lists(values: Tensor, counts: Tensor) -> pl.Series:
    """Return a list column of consecutive ``values``, ``counts`` of them per row."""
    offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    lists = pa.LargeListArray.from_arrays(pa.array(offsets.numpy(force=True)), pa.array(values.numpy(force=True)))
    return pl.Series(values=lists)
