"""Streaming over layers and chunks keeps exactly what sorting everything at once would keep, for both sets."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.neurons.config import NeuronScoresConfig
from pipeline.neurons.topk import Chunk, make_cut

CPU = torch.device("cpu")


@st.composite
def problems(draw):
    """Contributions per rollout [L, T, M], of few different values so that ties abound, and settings."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_layers, n_neurons = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    lengths = draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
    spread = draw(st.sampled_from([2, 5, 1000]))
    rollouts = [rng.integers(-spread, spread, (n_layers, t, n_neurons)).astype(np.float32) for t in lengths]
    config = NeuronScoresConfig(
        cut=draw(st.sampled_from(["entries", "neurons"])),
        top_k=draw(st.integers(1, 30)),
        top_k_per_layer=draw(st.integers(1, 8)),
        chunk_tokens=draw(st.integers(1, 13)),
    )
    return rollouts, config


def stream(rollouts, config):
    """Return {neuron: score} per rollout, through the product's cut."""
    whole, rationale = stream_sets(rollouts, config, [np.zeros(r.shape[1], dtype=bool) for r in rollouts])
    assert rationale == whole
    return whole


def stream_sets(rollouts, config, stated):
    """Return {neuron: score} per rollout of both sets; ``stated`` says which tokens state the answer."""
    n_layers = len(rollouts[0])
    cut = make_cut(config, len(rollouts), CPU)
    for layer in range(n_layers):
        chunks = []
        for start in range(0, max(r.shape[1] for r in rollouts), config.chunk_tokens):
            parts = [torch.tensor(r[layer, start : start + config.chunk_tokens]) for r in rollouts]
            owners = torch.arange(len(parts)).repeat_interleave(torch.tensor([len(p) for p in parts]))
            marks = np.concatenate([s[start : start + config.chunk_tokens] for s in stated])
            chunks.append(Chunk(torch.cat(parts), owners, torch.tensor(marks)))
        cut.add_layer(layer, iter(chunks))
    return [per_rollout(kept, len(rollouts)) for kept in cut.result()]


def per_rollout(kept, n_rollouts):
    pairs = list(zip(kept.owners.tolist(), kept.neurons.tolist(), strict=True))
    assert pairs == sorted(set(pairs))
    scores = kept.scores.tolist()
    return [{n: s for (o, n), s in zip(pairs, scores, strict=True) if o == r} for r in range(n_rollouts)]


def all_at_once(c, config):
    """Return {neuron: score} of one rollout [L, T, M] by sorting all entries, or all neurons."""
    n_layers, n_tokens, n_neurons = c.shape
    entries = []  # (score, neuron), in the order of layer, position, neuron
    for layer in range(n_layers):
        if config.cut == "entries":
            entries += [(c[layer, t, i], layer * n_neurons + i) for t in range(n_tokens) for i in range(n_neurons)]
            continue
        peak = c[layer].max(axis=0)
        best = sorted(range(n_neurons), key=lambda i: (-peak[i], i))[: config.top_k_per_layer]
        entries += [(peak[i], layer * n_neurons + i) for i in sorted(best)]
    top = sorted((e for e in entries if e[0] > 0), key=lambda e: -e[0])[: config.top_k]
    return {neuron: score for score, neuron in reversed(top)}


def papers_rule(c, config):
    n_layers, n_tokens, n_neurons = c.shape
    best = {}
    for layer in range(n_layers):
        for start in range(0, n_tokens, config.chunk_tokens):
            peak = c[layer, start : start + config.chunk_tokens].max(axis=0)
            for i in sorted(range(n_neurons), key=lambda i: (-peak[i], i))[: config.top_k_per_layer]:
                best[layer * n_neurons + i] = max(best.get(layer * n_neurons + i, 0), peak[i])
    top = sorted((n for n in best if best[n] > 0), key=lambda n: (-best[n], n))[: config.top_k]
    return {n: best[n] for n in top}


@settings(max_examples=300, deadline=None)
@given(problems())
def test_stream_equals_all_at_once(problem):
    rollouts, config = problem
    for kept, c in zip(stream(rollouts, config), rollouts, strict=True):
        assert kept == all_at_once(c, config)


@settings(max_examples=300, deadline=None)
@given(problems(), st.data())
def test_the_rationale_is_what_the_other_tokens_alone_would_give(problem, data):
    rollouts, config = problem
    stated = [
        np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n))) for n in (r.shape[1] for r in rollouts)
    ]
    whole, rationale = stream_sets(rollouts, config, stated)
    assert whole == [all_at_once(c, config) for c in rollouts]
    for kept, c, marks in zip(rationale, rollouts, stated, strict=True):
        assert kept == ({} if marks.all() else all_at_once(c[:, ~marks], config))


@settings(max_examples=100, deadline=None)
@given(problems(), st.integers(1, 13))
def test_neither_chunks_nor_batch_mates_matter(problem, chunk_tokens):
    rollouts, config = problem
    other = config.model_copy(update={"chunk_tokens": chunk_tokens})
    assert stream(rollouts, config) == [stream([c], other)[0] for c in rollouts]


def test_cuts_differ_in_what_the_size_means():
    """One neuron that carries every token is one neuron of K entries, but leaves room for K - 1 other neurons."""
    c = np.full((1, 10, 8), 0.1, dtype=np.float32)
    c[0, :, 3] = 5
    settings = {"top_k": 6, "top_k_per_layer": 8}
    assert list(stream([c], NeuronScoresConfig(cut="entries", **settings))[0]) == [3]
    assert len(stream([c], NeuronScoresConfig(cut="neurons", **settings))[0]) == 6


@settings(max_examples=100, deadline=None)
@given(problems())
def test_the_papers_rule_for_a_response_of_one_chunk(problem):
    """Top of each layer within each chunk, the largest score of a neuron over chunks, then the global top K."""
    rollouts, config = problem
    for c in rollouts:
        whole = config.model_copy(update={"cut": "neurons", "chunk_tokens": c.shape[1]})
        assert stream([c], whole)[0] == papers_rule(c, whole)


def test_where_chunks_begin_would_matter_to_the_papers_rule():
    """A neuron among the top of its layer in a weak chunk only: the paper's rule keeps it or not, by the chunks."""
    c = np.zeros((1, 2, 3), dtype=np.float32)
    c[0, 0] = [9, 8, 0]
    c[0, 1] = [1, 2, 3]
    by_chunk = {n: NeuronScoresConfig(cut="neurons", top_k=5, top_k_per_layer=1, chunk_tokens=n) for n in (1, 2)}
    assert [papers_rule(c, by_chunk[n]) for n in (1, 2)] == [{0: 9, 2: 3}, {0: 9}]
    assert [stream([c], by_chunk[n]) for n in (1, 2)] == [[{0: 9}], [{0: 9}]]


def test_subnormal_contributions_are_positive():
    c = np.array([[[2.0**-149, 0.0, -1.0]]], dtype=np.float32)
    assert stream([c], NeuronScoresConfig(cut="entries")) == [{0: 2.0**-149}]


def test_ties_at_a_cut_go_to_the_first():
    """Enough equal values that an unstable sort would show."""
    c = np.ones((1, 40, 300), dtype=np.float32)
    assert list(stream([c], NeuronScoresConfig(cut="neurons", top_k_per_layer=5))[0]) == [0, 1, 2, 3, 4]
    assert list(stream([c], NeuronScoresConfig(cut="neurons", top_k=5))[0]) == [0, 1, 2, 3, 4]
    assert list(stream([c], NeuronScoresConfig(cut="entries", top_k=5))[0]) == [0, 1, 2, 3, 4]
