"""Options shown in an order per sample."""

import polars as pl

from pipeline.rollouts.config import RolloutsConfig
from pipeline.rollouts.orders import shown_orders
from pipeline.rollouts.sample import Asking, sample_rollouts

OPTIONS = ["red", "blue", "green", "grey"]
CONFIG = RolloutsConfig(n_samples=4, max_new_tokens=3, permute_options=True, instruction="Finish with a letter.")


def pool(order=(1, 0, 3, 2)):
    return pl.DataFrame(
        {
            "id": [f"q{i}" for i in range(4)],
            "question": [*(f"Which {i}?" for i in range(3)), "Why?"],
            "options": [*[OPTIONS] * 3, []],
            "permutation": [*[list(order)] * 3, []],
        }
    )


def sampled(frame, lm, config=CONFIG):
    return pl.concat(sample_rollouts(frame, lm, Asking.of(config, config))).sort("id", "sample")


def test_each_sample_shows_its_order(tiny):
    frame = pool()
    asked = dict(frame.select("id", "question").iter_rows())
    orders = set()
    for row in sampled(frame, tiny).iter_rows(named=True):
        order = row["permutation"]
        if row["id"] == "q3":
            assert order == []
            continue
        orders.add(tuple(order))
        assert sorted(order) == [0, 1, 2, 3]
        shown = "\n".join(f"{letter}. {OPTIONS[index]}" for letter, index in zip("ABCD", order, strict=True))
        assert row["prompt"] == f"{asked[row['id']]}\n{shown}\n\nFinish with a letter."
        assert tiny.tokenizer.decode(row["prompt_ids"]) == f"<|user|>{row['prompt']}<|end|><|assistant|>"
    assert len(orders) > 4


def test_off_shows_the_pools_order(tiny):
    frame = pool()
    off = sampled(frame, tiny, CONFIG.model_copy(update={"permute_options": False}))
    assert off["permutation"].to_list() == [order for order in frame["permutation"].to_list() for _ in range(4)]
    assert off["prompt_ids"].n_unique() == 4
    assert off.filter(sample=0)["prompt"].to_list() == [
        CONFIG.render(*row) for row in frame.select("question", "options", "permutation").iter_rows()
    ]


def test_orders_depend_on_seed_question_and_sample_only():
    def orders(question="q", permutation=(0, 1, 2, 3), n_samples=50, seed=0):
        by_sample = {
            sample: order
            for order, samples in shown_orders(question, permutation, n_samples, seed).items()
            for sample in samples
        }
        return [by_sample[sample] for sample in range(n_samples)]

    assert orders() == orders(permutation=(3, 2, 1, 0))
    assert orders()[:10] == orders(n_samples=10)
    assert len({tuple(orders(question)) for question in "qrs"}) == 3
    assert orders() != orders(seed=1)
    assert len(set(orders())) > 15
    assert set(orders(permutation=(3, 2, 1, 0), seed=None)) == {(3, 2, 1, 0)}
