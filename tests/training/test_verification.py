"""Self-verification: the cascade against hand-made votes, and the question that is read out of a response."""

import polars as pl
import pytest
import torch

from pipeline.models import encode_chat
from training.judge import IS_ANOTHER, IS_FALSE, IS_RIGHT, IS_SAME, IS_TRUE, IS_WRONG, Judge
from training.verification import CHECKS, RESTATE, restate, verify

QUESTIONS = {template: template.partition("{restated}")[2] or template.partition("{response}")[2] for template in [
    IS_SAME, IS_ANOTHER, IS_TRUE, IS_FALSE, IS_RIGHT, IS_WRONG]}  # fmt: skip
"""What each judgment asks in the end."""


def responses(*texts, prompt="colour?"):
    rows = [(f"q{i}", 0, prompt, text) for i, text in enumerate(texts)]
    return pl.DataFrame(rows, schema=["id", "sample", "prompt", "response"], orient="row")


@pytest.fixture
def votes(monkeypatch):
    """Let the judge say for each response what a table says, and return what it was asked, in order."""
    asked = []

    def decide(table):
        def p_yes(_judge, questions):
            asked.extend(questions)
            return [
                next(
                    table.get((name, QUESTIONS[template]), float(CHECKS_FLAT[template]))
                    for template in QUESTIONS
                    if text.endswith(QUESTIONS[template])
                    for name in [next(word for word in ("red", "blue", "green", "teal") if word in text)]
                )
                for text in questions
            ]

        monkeypatch.setattr(Judge, "p_yes", p_yes)
        monkeypatch.setattr("training.verification.restate", lambda frame, _model: [f"{r}?" for r in frame["response"]])
        return asked

    return decide


CHECKS_FLAT = {template: is_for for check in CHECKS.values() for template, is_for in check.items()}


def test_every_check_is_asked_both_ways():
    assert list(CHECKS) == ["cycle_consistency", "factuality", "correctness"]
    assert [list(votes.values()) for votes in CHECKS.values()] == [[True, False]] * 3
    assert set(CHECKS_FLAT) == set(QUESTIONS)


def test_what_all_votes_are_for_passes(tiny, votes):
    votes({})
    passed, refused = verify(responses("red", "blue"), tiny)
    assert passed.to_list() == [True, True]
    assert refused == {"cycle_consistency": 0, "factuality": 0, "correctness": 0}


@pytest.mark.parametrize("template", QUESTIONS)
@pytest.mark.parametrize("against", ["no", "undecided", "not asked"])
def test_one_vote_against_refuses(tiny, votes, template, against):
    share = {"no": 1 - float(CHECKS_FLAT[template]), "undecided": 0.5, "not asked": None}[against]
    votes({("blue", QUESTIONS[template]): share})
    passed, refused = verify(responses("red", "blue", "green"), tiny)
    assert passed.to_list() == [True, False, True]
    check = next(name for name, asked in CHECKS.items() if template in asked)
    assert refused == dict.fromkeys(CHECKS, 0) | {check: 1}


def test_a_judge_that_says_yes_to_everything_passes_nothing(tiny, votes):
    votes({(name, text): 0.9 for name in ("red", "blue") for text in QUESTIONS.values()})
    passed, refused = verify(responses("red", "blue"), tiny)
    assert not passed.any()
    assert refused == {"cycle_consistency": 2, "factuality": 0, "correctness": 0}


def test_later_checks_are_asked_of_what_passed_the_earlier(tiny, votes):
    asked = votes({("red", QUESTIONS[IS_SAME]): 0.0, ("blue", QUESTIONS[IS_TRUE]): 0.0})
    passed, refused = verify(responses("red", "blue", "green"), tiny)
    assert passed.to_list() == [False, False, True]
    assert refused == {"cycle_consistency": 1, "factuality": 1, "correctness": 0}
    assert len(asked) == 3 + 2 + 2 + 1 + 1 + 1


def test_the_cycle_shows_the_judge_what_the_model_wrote(tiny, votes):
    asked = votes({})
    verify(responses("teal", prompt="which?"), tiny)
    assert asked[0].startswith("First question:\nwhich?\n\nSecond question:\nteal?\n\n")


def test_the_question_is_the_most_probable_token_by_token(tiny):
    frame = responses("red", "a long colour", prompt="colour, please?")
    longest, end = len(encode_chat(tiny.tokenizer, "colour, please?")), tiny.tokenizer.eos_token_id
    for text, written in zip(frame["response"], restate(frame, tiny), strict=True):
        ids = encode_chat(tiny.tokenizer, RESTATE.format(response=text))
        start = len(ids)
        while len(ids) - start < longest and ids[-1] != end:
            with torch.no_grad():
                ids.append(int(tiny.model(torch.tensor([ids])).logits[0, -1].argmax()))
        assert written == tiny.tokenizer.decode(ids[start:], skip_special_tokens=True)
        assert "colour, please?" not in RESTATE.format(response=text)


def test_what_does_not_fit_or_holds_special_tokens_fails(tiny):
    frame = responses("x" * 500, "red<|end|>")
    assert restate(frame, tiny) == [None, None]
    passed, refused = verify(frame, tiny)
    assert passed.to_list() == [False, False]
    assert refused["cycle_consistency"] == 2


def test_verdicts_repeat(tiny):
    frame = responses("red", "Answer: blue", "a long and winding colour")
    first, second = (verify(frame, tiny) for _ in range(2))
    assert first[0].to_list() == second[0].to_list()
    assert first[1] == second[1]
    assert verify(frame[:0], tiny)[1] == dict.fromkeys(CHECKS, 0)
