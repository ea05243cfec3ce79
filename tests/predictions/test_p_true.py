"""P(True): the model's own next-token probabilities, whatever stands beside a prompt in its batch."""

import polars as pl
import pytest
import torch

from pipeline.models import LanguageModel, encode_chat
from pipeline.pool.schemas import RAW_POOL
from pipeline.predictions.p_true import p_true

TEXTS = {"a": "Which colour has the sky?", "b": "And?", "c": "Why?<|end|>", "d": "no majority?", "e": "y" * 600}
OPTIONS = {"a": ["red", "blue"]}
ANSWERS = {"a": "blue", "b": "forty", "c": "red", "e": "red"}


@pytest.fixture(scope="module")
def questions():
    kinds = pl.DataFrame(RAW_POOL.empty_table()).schema
    rows = [{"id": key, "question": text, "options": OPTIONS.get(key)} for key, text in TEXTS.items()]
    return pl.DataFrame(rows, schema={name: kinds[name] for name in rows[0]})


def own(tiny, asked):
    """Return P(Yes) against P(No), begun by the bytes Y and N, by a forward pass of its own."""
    with torch.no_grad():
        logits = tiny.model(torch.tensor([encode_chat(tiny.tokenizer, asked)])).logits[0, -1]
    yes, no = (tiny.tokenizer.encode(letter, add_special_tokens=False)[0] for letter in "YN")
    return float(logits[[yes, no]].double().softmax(-1)[0])


@pytest.mark.parametrize("batch_tokens", [1, 10_000])
def test_it_is_the_probability_of_yes_against_no_as_the_next_token(tiny, questions, batch_tokens):
    asked = {
        "a": "Which colour has the sky?\nA. red\nB. blue\n\nProposed answer: blue",
        "b": "And?\n\nProposed answer: forty",
    }
    expected = {
        key: own(tiny, f"{text}\n\nIs the proposed answer right? Reply with Yes or No.") for key, text in asked.items()
    }
    found = p_true(questions, ANSWERS, tiny, batch_tokens)
    # c holds a special token, d has no majority, and e does not fit the model
    assert dict(found.select("id", "p_true").iter_rows()) == pytest.approx(expected, rel=1e-5)
    assert found["answer"].to_list() == ["blue", "forty"]


def test_a_tokenizer_that_begins_yes_and_no_alike_gives_none(tiny, questions):
    class Alike:
        decode = tiny.tokenizer.decode

        def encode(self, *_args, **_kwargs):
            return [5]

    assert p_true(questions, ANSWERS, LanguageModel(tiny.model, Alike()), 100).is_empty()
