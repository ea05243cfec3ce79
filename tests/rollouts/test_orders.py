"""Options shown in an order per sample: what is stored counts in the source's order all the same."""

import polars as pl
import pytest

from pipeline.errors import ArtifactError
from pipeline.prompts import render_question, render_teacher_prompt, reorder_options
from pipeline.rollouts.config import RolloutsConfig
from pipeline.rollouts.orders import shown_orders
from pipeline.rollouts.sampler import sample_rollouts

OPTIONS = ["red", "blue", "green", "grey"]
CONFIG = RolloutsConfig(n_samples=4, max_new_tokens=3, permute_options=True)
INSTRUCTION = "Finish with a letter."


def pool(order=(1, 0, 3, 2)):
    shown = [OPTIONS[index] for index in order]
    stems = [f"Which {i}?" for i in range(3)]
    return pl.DataFrame(
        {
            "id": [f"q{i}" for i in range(4)],
            "question": [*stems, "Why?"],
            "options": [*[OPTIONS] * 3, []],
            "permutation": [*[list(order)] * 3, []],
            "prompt": [*(render_question(stem, shown, INSTRUCTION) for stem in stems), "Why?"],
        }
    )


def sampled(frame, lm, config=CONFIG):
    return pl.concat(sample_rollouts(frame, lm, config, progress=False)).sort("id", "sample")


def test_each_sample_shows_its_order_and_letters_map_back(tiny, monkeypatch):
    monkeypatch.setattr("pipeline.rollouts.sampler.decode", lambda *_: "Answer: B\n")
    frame = pool()
    asked = dict(frame.select("id", "question").iter_rows())
    orders = set()
    for row in sampled(frame, tiny).iter_rows(named=True):
        order, prompt = row["permutation"], tiny.tokenizer.decode(row["prompt_ids"])
        if row["id"] == "q3":
            assert order == []
            continue
        orders.add(tuple(order))
        assert sorted(order) == [0, 1, 2, 3]
        assert render_question(asked[row["id"]], [OPTIONS[index] for index in order], INSTRUCTION) in prompt
        assert f"B. {row['answer']}" in prompt
        assert OPTIONS[row["answer_index"]] == row["answer"] == OPTIONS[order[1]]
    assert len(orders) > 4


def test_off_shows_the_pools_order(tiny):
    frame = pool()
    off = sampled(frame, tiny, CONFIG.model_copy(update={"permute_options": False}))
    assert off["permutation"].to_list() == [order for order in frame["permutation"].to_list() for _ in range(4)]
    assert off["prompt_ids"].n_unique() == 4
    assert [tiny.tokenizer.decode(ids) for ids in off.filter(sample=0)["prompt_ids"]] == [
        f"<|user|>{prompt}<|end|><|assistant|>" for prompt in frame["prompt"]
    ]


def test_orders_depend_on_seed_question_and_sample_only():
    config = CONFIG.model_copy(update={"n_samples": 50})

    def orders(question="q", permutation=(0, 1, 2, 3), config=config):
        by_sample = {
            s: order for order, samples in shown_orders(question, permutation, config).items() for s in samples
        }
        return [by_sample[sample] for sample in range(config.n_samples)]

    assert orders() == orders(permutation=(3, 2, 1, 0))
    assert orders()[:10] == orders(config=config.model_copy(update={"n_samples": 10}))
    assert len({tuple(orders(question)) for question in "qrs"}) == 3
    assert orders() != orders(config=config.model_copy(update={"seed": 1}))
    assert len(set(orders())) > 15


def test_reordering_keeps_what_stands_around_the_question():
    question = "Which of these?\nA. blue"
    prompt = render_question(question, ["blue", "red"], INSTRUCTION)
    teacher = render_teacher_prompt("Example\nWhich?\nResponse: A\n\nNow the question\n", prompt)
    got = reorder_options(teacher, question, ["red", "blue"], [1, 0], [0, 1])
    assert got == teacher[: -len(prompt)] + render_question(question, ["red", "blue"], INSTRUCTION)
    assert reorder_options(got, question, ["red", "blue"], [0, 1], [1, 0]) == teacher


@pytest.mark.parametrize("prompt", ["Something else", "Which?\nA. red\nB. bluebell", "Which?\nA. blue\nB. red"])
def test_a_prompt_that_does_not_show_the_question_so_is_refused(prompt):
    with pytest.raises(ArtifactError, match="materialize 'raw_pool' again"):
        reorder_options(prompt, "Which?", ["red", "blue"], [0, 1], [1, 0])
    assert reorder_options(prompt, "Which?", ["red", "blue"], [0, 1], [0, 1]) == prompt
