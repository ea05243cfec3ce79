"""Draws follow the model's distribution after temperature and top-p."""

import pytest
import torch
from transformers import TopPLogitsWarper

from pipeline.generation.config import Sampling
from pipeline.generation.seeded import SeededDraw, draw_tokens


def test_draws_follow_the_distribution():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    n = 4000
    config = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=1)
    draw = SeededDraw(list(range(n)), config, torch.zeros(n, 1, dtype=torch.long), torch.device("cpu"))
    tokens = draw(logits.expand(n, -1), torch.arange(n), 0)
    shares = torch.bincount(tokens, minlength=4) / n
    assert torch.allclose(shares, logits.softmax(-1)[0], atol=0.03)


def test_top_p_removes_the_tail():
    logits = torch.tensor([[5.0, 0.0, 0.0, 0.0]]).expand(200, -1)
    config = Sampling(temperature=1.0, top_p=0.5, max_new_tokens=1)
    draw = SeededDraw(list(range(200)), config, torch.zeros(200, 1, dtype=torch.long), torch.device("cpu"))
    assert set(draw(logits, torch.arange(200), 0).tolist()) == {0}


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.95, 0.999])
@pytest.mark.parametrize("kind", ["peaked", "flat", "tied", "uniform", "rounded", "certain"])
def test_the_nucleus_is_the_one_that_sorting_finds(kind, top_p):
    """Also where it ends beyond the leading tokens, at a tie, or within rounding of ``top_p``; rows mixed.

    Each quantile of the distribution within it is the token that a sum over the whole vocabulary, in its order, finds.
    """
    scores = torch.randn(12, 5000, generator=torch.Generator().manual_seed(0))
    scores = {
        "peaked": scores * 5,
        "flat": scores,
        "tied": (scores * 5).round(),
        "uniform": scores * 0,
        "rounded": (scores * 5).bfloat16().float(),
        "certain": scores.scatter(1, torch.arange(12)[:, None], 200.0),
    }[kind]
    scores[1] = scores[1] * 7
    probabilities = TopPLogitsWarper(top_p)(None, scores).double().softmax(-1)
    cumulative = probabilities.cumsum(-1)
    drawn = set()
    for quantile in torch.linspace(0.001, 0.999, 25, dtype=torch.float64).tolist():
        tokens = draw_tokens(scores, top_p, torch.full((12, 1), quantile, dtype=torch.float64))
        assert tokens.squeeze(1).tolist() == (cumulative <= quantile * cumulative[:, -1:]).sum(-1).tolist()
        drawn |= {*tokens[2].tolist()}
    assert drawn <= {*probabilities[2].nonzero().squeeze(1).tolist()}
