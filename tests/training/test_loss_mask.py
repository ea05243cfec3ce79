"""Which tokens count in the loss of distillation."""

import pytest
import torch

from pipeline.adapters.config import DistilledAdapterConfig
from pipeline.deduplication.schemas import POOL
from pipeline.errors import ArtifactError
from pipeline.models import encode_chat
from training.loss_mask import LossMask

from .conftest import put

QUESTION = {"id": "q", "question": "Which?", "options": ["green", "red"], "permutation": [1, 0]}


@pytest.fixture
def mask_of(tiny, tmp_path, job_for):
    """Return a function from settings and texts to the texts that count."""
    inputs = {"pool": tmp_path / "pool"}
    put(inputs["pool"] / "pool.parquet", POOL, [QUESTION])

    def mask(texts, inputs=inputs, orders=None, **settings):
        section = DistilledAdapterConfig(**settings)
        job = job_for("opsd", tmp_path / "output", section, inputs=inputs)
        rows = [tiny.tokenizer.encode(text, add_special_tokens=False) for text in texts]
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        is_token = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        prompts = torch.tensor([encode_chat(tiny.tokenizer, "Which?\nA. red\nB. green")] * len(rows))
        counts = LossMask(job, section, tiny, orders or {})(["q"] * len(rows), prompts, ids, is_token)
        assert counts.shape == ids.shape
        assert not (counts & ~is_token.bool()).any()
        return [tiny.tokenizer.decode(row[kept.bool()]) for row, kept in zip(ids, counts, strict=True)]

    return mask


WHOLE, CUT = "I think. Answer: B<|end|>", "I think that"


def test_all_tokens_count_unless_something_else_is_asked_for(mask_of):
    assert mask_of([WHOLE, CUT]) == [WHOLE, CUT]


def test_the_first_tokens_only(mask_of):
    assert mask_of([WHOLE, CUT], loss_tokens=7) == ["I think", "I think"]
    assert mask_of([WHOLE], loss_tokens=500) == [WHOLE]


def test_cut_responses_do_not_count(mask_of):
    assert mask_of([WHOLE, CUT], truncated="drop") == [WHOLE, ""]
    assert mask_of([CUT], truncated="drop") == [""]


def test_the_tokens_of_the_answer_only(mask_of):
    texts = [WHOLE, CUT, "The answer is red.<|end|>", "A or B<|end|>"]
    assert mask_of(texts, loss_on="answer") == ["B", "", "red", ""]
    assert mask_of(texts, loss_on="answer", loss_tokens=2) == ["B", "", "re", ""]


def test_letters_are_read_in_the_order_that_the_prompt_shows(mask_of):
    """In another order letter and text contradict each other, and no answer is read."""
    pool, other = "Answer: A. red<|end|>", "Answer: A. green<|end|>"
    assert mask_of([pool, other], loss_on="answer") == ["A", ""]
    assert mask_of([pool, other], loss_on="answer", orders={"q": [0, 1]}) == ["", "A"]
    assert mask_of([pool, other], loss_on="answer", orders={"another": [0, 1]}) == ["A", ""]


def test_answers_cannot_be_read_without_the_questions(mask_of):
    with pytest.raises(ArtifactError, match="names no input 'pool'"):
        mask_of([WHOLE], inputs={}, loss_on="answer")
