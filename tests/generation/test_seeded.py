"""Draws follow the model's distribution after temperature and top-p."""

import torch

from pipeline.generation.config import Sampling
from pipeline.generation.seeded import SeededDraw


def test_draws_follow_the_distribution():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    n = 4000
    config = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=1)
    draw = SeededDraw(list(range(n)), config, torch.zeros(n, 1, dtype=torch.long), torch.device("cpu"))
    tokens = draw(torch.zeros(n, 1, dtype=torch.long), logits.expand(n, -1)).argmax(-1)
    shares = torch.bincount(tokens, minlength=4) / n
    assert torch.allclose(shares, logits.softmax(-1)[0], atol=0.03)


def test_top_p_removes_the_tail():
    logits = torch.tensor([[5.0, 0.0, 0.0, 0.0]]).expand(200, -1)
    config = Sampling(temperature=1.0, top_p=0.5, max_new_tokens=1)
    draw = SeededDraw(list(range(200)), config, torch.zeros(200, 1, dtype=torch.long), torch.device("cpu"))
    assert set(draw(torch.zeros(200, 1, dtype=torch.long), logits).argmax(-1).tolist()) == {0}
