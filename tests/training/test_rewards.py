"""Rewards against hand-computed cases, and what they read of a response."""

import math
from types import SimpleNamespace
from typing import get_args

import pytest
import torch

from pipeline.adapters.config import RewardName
from pipeline.generation.config import Sampling
from pipeline.models import encode_chat
from training.judge import IS_RIGHT, Judge
from training.rewards import REWARDS
from training.rewards.majority import agreement, distinct_answers
from training.rewards.reward import Response
from training.sampling import sample_responses


def response(question, answer, **others):
    given = {"prompt": f"{question}?", "text": f"Answer: {answer}", "self_certainty": 0.0} | others
    return Response(question=question, answer=answer, **given)


def group(question, *answers):
    return [response(question, answer) for answer in answers]


def test_every_reward_can_be_set():
    assert set(REWARDS) == set(get_args(RewardName))


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["red", "red", "blue", "green"], [1, 1, 0, 0]),
        (["red", None, None, None], [1, 0, 0, 0]),  # abstentions are no vote
        (["red", "red", "blue", "blue"], [0, 0, 0, 0]),  # a tie is no majority
        ([None, None, None, None], [0, 0, 0, 0]),
        (["red", "red", "red", "red"], [1, 1, 1, 1]),
    ],
)
def test_majority_rewards_the_answer_that_most_of_the_group_state(answers, expected):
    assert REWARDS["majority"](group("q", *answers), None) == expected


def test_each_group_has_a_majority_of_its_own():
    responses = [*group("q", "red", "red", "blue"), *group("p", "blue", "blue", "red")]
    assert REWARDS["majority"](responses, None) == [1, 1, 0, 1, 1, 0]


def test_agreement_is_the_share_of_the_leading_answers():
    responses = [*group("q", "red", "red", "blue", None), *group("p", "blue", "red", None, None)]
    assert agreement(responses) == pytest.approx((2 + 1) / 8)
    assert agreement(group("q", None, None)) == 0


def test_distinct_answers_are_those_of_all_groups_by_responses():
    responses = [*group("q", "red", "red", "blue", None), *group("p", "blue", "teal", None, None)]
    assert distinct_answers(responses) == 3 / 8
    assert distinct_answers(group("q", None, None)) == 0


def test_self_certainty_is_the_mean_divergence_of_the_next_token_from_uniform(tiny):
    """Of the very logits that the response is drawn by: recomputed here token by token in float64."""
    prompt = encode_chat(tiny.tokenizer, "colour?")
    sampling = Sampling(temperature=0.7, top_p=0.9, max_new_tokens=6)
    (completion,) = sample_responses(tiny, [prompt], sampling, [("q", 0)], seed=0, step=0)
    found = Response.read(completion, "colour?", "colour?", [], tiny.tokenizer)
    ids = torch.tensor([prompt + completion.response_ids])
    with torch.no_grad():
        logits = tiny.model(ids).logits[0, len(prompt) - 1 : -1].double()
    n_tokens = logits.shape[1]
    by_token = (1 / n_tokens * (math.log(1 / n_tokens) - logits.log_softmax(-1))).sum(-1)
    assert len(by_token) == len(completion.response_ids)
    assert REWARDS["self_certainty"]([found], None) == [pytest.approx(float(by_token.mean()), rel=1e-5)]


def test_self_judge_is_the_probability_of_yes_to_whether_the_answer_is_right(tiny):
    responses = [response("q", "red"), response("p", "blue", text="Because.\nAnswer: blue")]
    asked = ["Question:\nq?\n\nResponse:\nAnswer: red\n\n", "Question:\np?\n\nResponse:\nBecause.\nAnswer: blue\n\n"]
    asked = [f"{text}Is the final answer of the response right? Reply with Yes or No." for text in asked]
    assert [IS_RIGHT.format(prompt=each.prompt, response=each.text) for each in responses] == asked
    judge = Judge(tiny)
    assert REWARDS["self_judge"](responses, judge) == judge.p_yes(asked)


def test_what_cannot_be_judged_gets_nothing(tiny):
    judge = Judge(tiny)
    rewards = REWARDS["self_judge"]([response("q", "red", text="x" * 600), response("q", "red")], judge)
    assert rewards[0] == 0
    assert rewards[1] > 0


@pytest.mark.parametrize(
    ("text", "options", "answer"),
    [
        ("Answer: B<|end|>", ["red", "blue"], "blue"),  # of the order shown
        ("Answer: 1/2<|end|>", [], "1/2"),
        ("Answer: 0.5<|end|>", [], "1/2"),  # the form in which open answers are counted
        ("no idea<|end|>", ["red", "blue"], None),
        ("Answer: blue", [], None),  # cut, and may go on
    ],
)
def test_answers_are_read_as_those_of_the_rollouts(tiny, text, options, answer):
    ids = tiny.tokenizer.encode(text, add_special_tokens=False)
    request = SimpleNamespace(id="q", prompt_ids=encode_chat(tiny.tokenizer, "colour?"))
    finish = "stop" if text.endswith("<|end|>") else "length"
    completion = SimpleNamespace(request=request, response_ids=ids, finish_reason=finish, self_certainty=1.0)
    read = Response.read(completion, "colour?", "colour?", options, tiny.tokenizer)
    assert (read.question, read.text, read.answer) == ("q", text.removesuffix("<|end|>"), answer)


def test_a_thought_that_the_template_opened_is_no_answer(tiny):
    request = SimpleNamespace(id="q", prompt_ids=tiny.tokenizer.encode("colour?<think>", add_special_tokens=False))
    ids = tiny.tokenizer.encode("Answer: red<|end|>", add_special_tokens=False)
    completion = SimpleNamespace(request=request, response_ids=ids, finish_reason="stop", self_certainty=1.0)
    assert Response.read(completion, "colour?", "colour?", ["red"], tiny.tokenizer).answer is None
