"""Batches keep the order, lose nothing, respect the budget, and shrink until they fit."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.batching import TokenBudget
from pipeline.errors import ModelError


class Item(NamedTuple):
    id: str
    sample: int
    n_tokens: int


def items(lengths):
    return [Item(f"q{i}", 0, n) for i, n in enumerate(lengths)]


def length(item):
    return item.n_tokens


@given(st.lists(st.integers(1, 30), max_size=25), st.integers(1, 100))
def test_batches_are_as_large_as_the_budget_allows(lengths, tokens):
    ordered = items(lengths)
    batches = [batch for batch, _ in TokenBudget(tokens).run(ordered, length, len)]
    assert [item for batch in batches for item in batch] == ordered
    for batch, following in zip(batches, [*batches[1:], []], strict=False):
        longest = max(map(length, batch))
        assert len(batch) == 1 or len(batch) * longest <= tokens
        assert not following or (len(batch) + 1) * max(longest, length(following[0])) > tokens


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_batch_that_does_not_fit_is_made_smaller_and_stays_so(error):
    tried = []

    def compute(batch):
        tried.append(sum(map(length, batch)))
        if tried[-1] > 30:
            raise error
        return len(batch)

    budget, ordered = TokenBudget(100), items([10] * 20)
    results = list(budget.run(ordered, length, compute))
    assert tried[:2] == [100, 50]
    assert budget.tokens <= 30
    assert sum(n for _, n in results) == 20
    tried.clear()
    list(budget.run(ordered, length, compute))
    assert max(tried) <= 30


def test_one_sequence_that_does_not_fit_is_named():
    def compute(batch):
        raise torch.OutOfMemoryError

    with pytest.raises(ModelError, match="question 'q0', sample 0: out of memory with one sequence of 7 tokens"):
        list(TokenBudget(100).run(items([7, 7]), length, compute))


def test_other_errors_are_not_swallowed():
    def compute(batch):
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        list(TokenBudget(100).run(items([7]), length, compute))
