"""The moving average in low rank: its error against the exact average, and its products in bfloat16."""

import math

import pytest
import torch
from torch import nn

from training.teacher import LowRank, _teacher_forward, truncate

D_OUT, D_IN, RANK, DECAY = 96, 128, 8, 0.995


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("step", "largest"), [(1e-5, 2e-4), (1e-3, 0.015), (1e-2, 0.05)])
def test_the_average_of_a_random_walk_is_kept_up_to_its_bound(seed, step, largest):
    """Worse than a training, whose steps go one way: A and B walk at random for 250 steps, B from zero.

    At the largest step nothing of A's start is left. The exact average is dense and in float64.
    """
    generator = torch.Generator().manual_seed(seed)
    a = (2 * torch.rand(RANK, D_IN, generator=generator) - 1) / math.sqrt(D_IN)  # as LoRA begins
    b = torch.zeros(D_OUT, RANK)
    kept, exact, bound = LowRank(b, a), torch.zeros(D_OUT, D_IN, dtype=torch.float64), 0.0
    for _ in range(250):
        a = a + step * torch.randn(a.shape, generator=generator)
        b = b + step * torch.randn(b.shape, generator=generator)
        exact.lerp_(b.double() @ a.double(), 1 - DECAY)
        left, right = torch.cat([DECAY * kept.left, (1 - DECAY) * b], 1), torch.cat([kept.right, a])
        kept, lost = truncate(LowRank(left, right), 2 * RANK)
        bound = DECAY * bound + float(lost)
    assert kept.left.shape == (D_OUT, 2 * RANK)
    assert kept.right.shape == (2 * RANK, D_IN)
    error = float((kept.left @ kept.right - exact).norm())
    values = torch.linalg.svdvals(exact)
    best = float(values[2 * RANK :].norm())  # Eckart and Young: nothing of that rank is nearer
    assert error < largest * float(exact.norm())
    assert best <= error < 1.4 * best
    assert error <= bound


def test_what_has_no_more_than_the_rank_is_kept_whole():
    generator = torch.Generator().manual_seed(0)
    matrix = LowRank(torch.randn(9, 6, generator=generator), torch.randn(6, 5, generator=generator))
    kept, lost = truncate(matrix, 5)
    assert torch.allclose(kept.left @ kept.right, matrix.left @ matrix.right, atol=1e-4)
    assert float(lost) == 0


def test_bfloat16_teacher_keeps_an_average_smaller_than_the_weights_precision():
    """An update that moves every output by 0.1 has entries that a bfloat16 sum with the weights rounds away."""
    torch.manual_seed(0)
    linear = nn.Linear(4096, 64, bias=False, dtype=torch.bfloat16)
    x = torch.ones(1, 4096, dtype=torch.bfloat16)
    delta = LowRank(torch.ones(64, 1), torch.full((1, 4096), 0.1 / 4096))
    with torch.no_grad():
        moved = (_teacher_forward(linear, delta, x) - linear(x)).float().mean()
        merged = ((linear.weight + delta.left @ delta.right).bfloat16() - linear.weight).float().sum(1).mean()
    assert float(moved) == pytest.approx(0.1, rel=0.05)
    assert float(merged) != pytest.approx(0.1, rel=0.05)
