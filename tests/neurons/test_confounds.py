"""Correlations are over questions, whatever the shards, and the warning says what to do."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from pipeline.neurons.confounds import describe_confounds
from pipeline.neurons.schemas import NEURON_SIZES

N_QUESTIONS, N_SAMPLES = 30, 3


def sizes_table(n_neurons, n_tokens, **columns):
    rng = np.random.default_rng(1)
    rows = N_QUESTIONS * N_SAMPLES
    table = pl.DataFrame(
        {
            "id": [f"q{i % N_QUESTIONS}" for i in range(rows)],
            "n_neurons": n_neurons,
            "n_response_tokens": n_tokens,
            "self_certainty": rng.normal(size=rows),
            "mean_logprob": rng.normal(size=rows),
        }
        | columns
    )
    other = [pl.lit(None).alias(name) for name in NEURON_SIZES.names if name not in table.columns]
    return table.with_columns(other)


def described(table, folder, n_shards=4):
    paths = []
    for number, start in enumerate(range(0, len(table), -(-len(table) // n_shards))):
        paths.append(folder / f"shard-{number}.parquet")
        table.slice(start, -(-len(table) // n_shards)).write_parquet(paths[-1])
    return describe_confounds(paths)


def draw(seed=0):
    return np.random.default_rng(seed).integers(1, 200, size=(2, N_QUESTIONS * N_SAMPLES))


def test_they_are_those_of_the_questions_means(tmp_path):
    n_neurons, n_tokens = draw()
    table = sizes_table(n_neurons, n_tokens)
    notes = described(table, tmp_path)
    means = [table[name].to_numpy().reshape(N_SAMPLES, -1).mean(axis=0) for name in table.columns[1:5]]
    expected = [spearmanr(means[0], other).statistic for other in means[1:]]
    assert list(notes["rank_correlation_of_support"].values()) == pytest.approx(expected)
    assert "warning" not in notes
    assert described(table, tmp_path, n_shards=1) == notes


@pytest.mark.parametrize(("sign", "word"), [(1, "larger"), (-1, "smaller")])
def test_a_size_that_follows_length_is_warned_of(tmp_path, sign, word):
    noise, n_tokens = draw()
    notes = described(sizes_table(1_000 + sign * n_tokens + noise // 10, n_tokens), tmp_path)
    assert f"longer responses have {word} neuron sets" in notes["warning"]
    assert "neuron_support_per_token or neuron_support_residual" in notes["warning"]


def test_what_was_not_recorded_has_no_correlation_and_empty_sets_do_not_count(tmp_path):
    n_neurons, n_tokens = draw()
    unknown = pl.Series([None] * len(n_tokens), dtype=pl.Float64)
    n_neurons[1::N_QUESTIONS] = 0
    table = sizes_table(n_neurons, n_tokens, mean_logprob=unknown)
    rho = described(table, tmp_path)["rank_correlation_of_support"]
    assert rho["mean_logprob"] is None
    assert rho == described(table.filter(pl.col("id") != "q1"), tmp_path)["rank_correlation_of_support"]
