"""Stage ``causal_check``: do responses rest on the neurons that were found to carry them?

The leading neurons of a response are silenced while the model reads it, and so are as many random neurons of the same
layers. If the scores mean something for this model, the former costs the response more log-probability. A silenced
neuron writes nothing at the positions where its activation was scored; elsewhere it is left alone. Many random neurons
are quiet at any moment, so this is a necessary sign, not proof of a fine distinction. Pinned by
``tests/causal/test_silence.py``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from pipeline.batching import TokenBudget
from pipeline.causal.config import CausalCheckConfig
from pipeline.errors import ArtifactError, ConfigError, ModelError
from pipeline.ledger.meter import count_tokens
from pipeline.models import LanguageModel
from pipeline.neurons.architecture import MlpStack, find_mlp_stack
from pipeline.neurons.batch import pad_right
from pipeline.neurons.collector import collect_activations
from pipeline.neurons.contribution import Position
from pipeline.seeding import derive_seed

Neurons = NDArray[np.int64]


@dataclass(frozen=True)
class Trial:
    """A response, and the neurons that are silent while the model reads it."""

    id: str
    """Question."""
    sample: int
    """Number of the rollout within its question."""
    prompt_ids: Sequence[int]
    """Tokens of the rendered prompt; at least one."""
    response_ids: Sequence[int]
    """Response tokens; at least one."""
    silenced: Neurons
    """Different neuron ids, layer * d_mlp + index."""

    @property
    def n_tokens(self) -> int:
        """Length of prompt and response (tokens)."""
        return len(self.prompt_ids) + len(self.response_ids)


def silence_responses(
    rollouts: pl.LazyFrame,
    scores: pl.LazyFrame,
    language_model: LanguageModel,
    config: CausalCheckConfig,
    position: Position,
) -> pl.DataFrame:
    """Return rows of the ``causal_check`` schema, one response per question, ordered by question id.

    Args:
        rollouts: rows of schema ROLLOUTS.
        scores: rows of schema NEURON_SCORES; rollouts that have none are not drawn.
        language_model: the model that gave the responses.
        config: how many questions, neurons and random controls.
        position: where the scores read their activations; neurons are silenced there.

    Raises:
        ArtifactError: no rollout has a scored response, or the scores are of another model.
        ConfigError: a layer has too few neurons left for the random controls.
        UnsupportedModelError: the model's neurons cannot be found.
        ModelError: one response exceeds the device's memory, or a log-probability is not finite.
    """
    responses = _draw_responses(rollouts, scores, config)
    stack = find_mlp_stack(language_model.model)
    trials = [
        Trial(row["id"], row["sample"], row["prompt_ids"], row["response_ids"], silenced)
        for row in responses
        for silenced in _arms(row, stack, config)
    ]
    by_length = sorted(range(len(trials)), key=lambda i: trials[i].n_tokens)
    read: list[float] = []
    with tqdm(total=len(trials), desc="causal check", unit="reading", mininterval=1) as bar:
        for batch, logprobs in TokenBudget(config.batch_tokens).run(
            [trials[i] for i in by_length],
            lambda trial: trial.n_tokens,
            lambda batch: mean_logprobs(batch, language_model, stack, position),
        ):
            read += logprobs
            bar.update(len(batch))
    in_order = np.empty(len(trials))
    in_order[by_length] = read
    n_arms = 2 + config.n_controls
    return _table(responses, trials[1::n_arms], in_order.reshape(-1, n_arms), stack)


def summarise(table: pl.DataFrame, config: CausalCheckConfig) -> dict[str, Any]:
    """Return the mean drops of a ``causal_check`` table and their paired difference, with bootstrap intervals.

    Questions are resampled; each has one response, so rows are independent. ``verdict`` says the result in words.
    """
    drops = table.select("drop_silenced", "drop_random", difference=pl.col("drop_silenced") - pl.col("drop_random"))
    values, n = drops.to_numpy(), len(drops)
    rng = np.random.default_rng(derive_seed(config.seed, "bootstrap"))
    means = [values[rng.integers(n, size=n)].mean(axis=0) for _ in range(config.n_resamples)]
    tail = (1 - config.confidence_level) / 2
    estimates = np.vstack([values.mean(axis=0), np.quantile(means, [tail, 1 - tail], axis=0)]).T  # [3, 3]
    return {
        "verdict": _verdict(estimates[2].tolist(), n, config),
        **{
            name: dict(zip(("mean", "low", "high"), row, strict=True))
            for name, row in zip(drops.columns, estimates.tolist(), strict=True)
        },
        "share_silenced_costs_more": float((values[:, 2] > 0).mean()),
        "n_questions": n,
        "seed": config.seed,
    }


def _verdict(difference: Sequence[float], n: int, config: CausalCheckConfig) -> str:
    mean, low, high = difference
    if low > 0:
        meaning = "the scores find neurons that the responses rest on"
    elif high < 0:
        meaning = "the scores find neurons that the responses rest on less than on others: do not select by them"
    else:
        meaning = "the scores are not shown to find neurons that the responses rest on"
    return (
        f"Silencing the {config.top_n} leading neurons of a response costs it {mean:.3f} nats per token more than "
        f"silencing as many random neurons of the same layers ({config.confidence_level:.0%} interval {low:.3f} to "
        f"{high:.3f}; {n} questions, seed {config.seed}): {meaning}."
    )


def _draw_responses(rollouts: pl.LazyFrame, scores: pl.LazyFrame, config: CausalCheckConfig) -> list[dict[str, Any]]:
    """Return tokens and neurons of the first scored response of each drawn question, by question id."""
    key = ["id", "sample"]
    scored = rollouts.filter(pl.col("response_ids").list.len() > 0).select(key).join(scores.select(key), on=key)
    first = scored.group_by("id").agg(pl.col("sample").min()).collect()
    if first.is_empty():
        raise ArtifactError("neuron_scores: no rollout has a scored response: materialize 'neuron_scores' again")
    drawn = sorted(first["id"], key=lambda question: derive_seed(config.seed, question))[: config.n_questions]
    rows = (
        first.lazy().filter(pl.col("id").is_in(drawn)).join(rollouts.select(*key, "prompt_ids", "response_ids"), on=key)
    )
    return rows.join(scores.select(*key, "neurons", "scores"), on=key).sort("id").collect().to_dicts()


def _arms(row: dict[str, Any], stack: MlpStack, config: CausalCheckConfig) -> Iterator[Neurons]:
    """Yield what is silenced in turn: nothing, the leading neurons, and each random control."""
    neurons = np.array(row["neurons"], dtype=np.int64)
    n_neurons = stack.n_layers * stack.d_mlp
    if neurons.size and neurons.max() >= n_neurons:
        raise ArtifactError(
            f"neuron_scores: question '{row['id']}' has neuron {neurons.max()} of a model that has {n_neurons}: "
            "materialize 'neuron_scores' with this model"
        )
    leading = neurons[np.lexsort((neurons, -np.array(row["scores"])))[: config.top_n]]
    yield leading[:0]
    yield leading
    for draw in range(config.n_controls):
        yield matched_neurons(leading, stack.d_mlp, derive_seed(config.seed, row["id"], row["sample"], draw))


def matched_neurons(neurons: Neurons, d_mlp: int, seed: int) -> Neurons:
    """Return as many random other neurons per layer as ``neurons`` has there, each at most once.

    Raises ConfigError when ``neurons`` holds more than half of a layer, which leaves too few others.
    """
    rng, drawn = np.random.default_rng(seed), [neurons[:0]]
    for layer, count in enumerate(np.bincount(neurons // d_mlp).tolist()):
        others = np.setdiff1d(np.arange(layer * d_mlp, (layer + 1) * d_mlp), neurons)
        if count > len(others):
            raise ConfigError(
                f"causal_check.top_n silences {count} of the {d_mlp} neurons of layer {layer}, which leaves too "
                "few for the random controls: lower it"
            )
        drawn.append(rng.choice(others, count, replace=False))
    return np.concatenate(drawn)


@torch.inference_mode()
def mean_logprobs(
    batch: Sequence[Trial], language_model: LanguageModel, stack: MlpStack, position: Position
) -> list[float]:
    """Return the mean log-probability of each trial's response tokens (nats) while its neurons are silent.

    They come from the model's own logits, soft-capping and scales included, in one forward pass under teacher forcing.
    Raises ModelError when a value is not finite.
    """
    ids = [[*trial.prompt_ids, *trial.response_ids] for trial in batch]
    tokens = pad_right(ids).to(language_model.device)  # [B, S]; causal, so padding is never seen
    starts = [len(trial.prompt_ids) for trial in batch]
    first_read = [start - 1 if position == "predicting" else start for start in starts]

    def silence(layer: int, activations: Tensor) -> Tensor:
        silenced = activations.reshape(*tokens.shape, stack.d_mlp).clone()  # some families flatten [B, S]
        for row, (trial, first) in enumerate(zip(batch, first_read, strict=True)):
            index = trial.silenced[trial.silenced // stack.d_mlp == layer] % stack.d_mlp
            read = silenced[row, first : first + len(trial.response_ids)]  # a view, [T, M]
            read.index_fill_(1, torch.from_numpy(index).to(read.device), 0.0)
        return silenced.reshape(activations.shape)

    with collect_activations(stack, "down_proj_input", silence):
        logits = language_model.model(input_ids=tokens, use_cache=False).logits
    count_tokens(read=sum(map(len, ids)))
    losses = [
        cross_entropy(logits[row, start - 1 : len(sequence) - 1].float(), tokens[row, start : len(sequence)])
        for row, (start, sequence) in enumerate(zip(starts, ids, strict=True))
    ]
    for trial, loss in zip(batch, losses, strict=True):
        if not loss.isfinite():
            raise ModelError(
                f"causal_check: question '{trial.id}', sample {trial.sample}: the log-probability is not finite in "
                f"{logits.dtype}: set model.dtype to float32 or bfloat16"
            )
    return [-loss.item() for loss in losses]


def _table(
    responses: Sequence[dict[str, Any]],
    leading: Sequence[Trial],
    logprobs: NDArray[np.float64],
    stack: MlpStack,
) -> pl.DataFrame:
    untouched, silenced, random = logprobs[:, 0], logprobs[:, 1], logprobs[:, 2:].mean(axis=1)
    columns = {
        "id": [row["id"] for row in responses],
        "sample": [row["sample"] for row in responses],
        "n_response_tokens": [len(row["response_ids"]) for row in responses],
        "n_silenced": [trial.silenced.size for trial in leading],
        "layer_counts": [np.bincount(t.silenced // stack.d_mlp, minlength=stack.n_layers).tolist() for t in leading],
        "logprob": untouched,
        "logprob_silenced": silenced,
        "logprob_random": random,
        "drop_silenced": untouched - silenced,
        "drop_random": untouched - random,
    }
    return pl.DataFrame(columns)
