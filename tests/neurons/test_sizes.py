"""The threshold-free sizes are the textbook formulas over all positive contributions of a rollout."""

import numpy as np
import pytest
import torch

from pipeline.neurons.sizes import SupportSizes
from pipeline.neurons.topk import Chunk


def sizes_of(*rollouts, pieces=1):
    """Take in each rollout's contributions [T, M] as two layers, in pieces of positions."""
    sizes = SupportSizes(len(rollouts), 2, torch.device("cpu"))
    for layer in range(2):
        for c in zip(*(np.array_split(r[:, layer::2], pieces) for r in rollouts), strict=True):
            owners = torch.arange(len(c)).repeat_interleave(torch.tensor([len(p) for p in c]))
            unstated = torch.zeros(len(owners), dtype=torch.bool)
            positive = torch.tensor(np.concatenate(c), dtype=torch.float32).clamp(min=0)
            sizes.add(layer, Chunk(positive, owners, unstated))
    return sizes


@pytest.mark.parametrize("pieces", [1, 3])
def test_reference_formulas(pieces):
    rng = np.random.default_rng(0)
    rollouts = [rng.normal(size=(n, 12)) * scale for n, scale in ((7, 1.0), (4, 1e-4), (9, 50.0))]
    sizes = sizes_of(*rollouts, pieces=pieces)
    for row, c in enumerate(rollouts):
        positive = c[c > 0]
        p = positive / positive.sum()
        assert float(sizes.score_sum[row]) == pytest.approx(positive.sum(), rel=1e-5)
        assert float(sizes.participation_ratio[row]) == pytest.approx(1 / (p**2).sum(), rel=1e-5)
        assert float(sizes.entropy_size[row]) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-5)
        layers = [np.maximum(c[:, layer::2], 0).sum() for layer in range(2)]
        np.testing.assert_allclose(sizes.layer_scores[row], layers, rtol=1e-5)


def test_equal_contributions_count_themselves():
    c = np.where(np.arange(40).reshape(4, 10) % 2 == 0, 0.25, -3.0)
    sizes = sizes_of(c)
    assert float(sizes.participation_ratio[0]) == pytest.approx(20)
    assert float(sizes.entropy_size[0]) == pytest.approx(20)


def test_without_positive_contributions_all_is_zero():
    sizes = sizes_of(-np.ones((2, 4)))
    assert [float(x) for x in (sizes.score_sum, sizes.participation_ratio, sizes.entropy_size)] == [0, 0, 0]


def test_only_the_rollout_with_a_number_that_is_none_is_not_finite():
    broken = np.ones((2, 4))
    broken[1, 3] = np.nan
    assert sizes_of(np.ones((2, 4)), broken, np.ones((2, 4)) * np.inf).finite.tolist() == [True, False, False]
