"""Echo of the student's vote against a plain double loop."""

import random

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.teacher.echo import answer_echo

OPTIONS = ["w", "x", "y"]
ORDERS = [[0, 1, 2], [2, 0, 1], [1, 2, 0], [2, 1, 0]]


def tables(answers, shown, seed=0):
    """Build the tables from {id: option index, text of an open answer, or None} and {id: [ids of examples]}."""
    rng = random.Random(seed)
    labels, pool, rollouts = [], [], []
    for key, answer in answers.items():
        is_open, rep = isinstance(answer, str), None if answer is None else rng.randrange(2)
        orders = [[]] * 3 if is_open else rng.choices(ORDERS, k=3)
        text = answer if answer is None or is_open else OPTIONS[answer]
        labels.append((key, text, None if is_open else answer, rep))
        pool.append((key, orders[2]))
        rollouts += [(key, sample, orders[sample]) for sample in range(2)]
    key, ints = {"id": pl.String}, pl.List(pl.Int32)
    label_types = {"pseudo_answer": pl.String, "pseudo_index": pl.Int32, "representative": pl.Int32}
    return (
        pl.DataFrame(list(shown.items()), schema=key | {"demonstration_ids": pl.List(pl.String)}, orient="row"),
        pl.DataFrame(labels, schema=key | label_types, orient="row"),
        pl.DataFrame(pool, schema=key | {"permutation": ints}, orient="row"),
        pl.LazyFrame(rollouts, schema=key | {"sample": pl.Int32, "permutation": ints}, orient="row"),
    )


def naive(pairs, targets, examples):
    """Return echo and expectation from what questions state as targets and as examples."""
    pairs = [(a, b) for a, b in pairs if a in targets and b in examples]
    if not pairs:
        return None
    hits = [targets[a] == examples[b] for a, b in pairs]
    by_chance = []
    for a, _ in pairs:
        others = [stated for key, stated in examples.items() if key != a]
        by_chance.append(sum(stated == targets[a] for stated in others) / max(1, len(others)))
    return sum(hits) / len(hits), sum(by_chance) / len(by_chance)


stated = st.one_of(st.none(), st.sampled_from([0, 1, 2]), st.sampled_from(["w", "5"]))


@given(st.data(), st.integers(0, 9))
def test_equals_a_double_loop(data, seed):
    answers = data.draw(st.dictionaries(st.sampled_from("abcdefgh"), stated, min_size=1))
    voted = [key for key, answer in answers.items() if answer is not None]
    examples = st.lists(st.sampled_from(voted), max_size=3) if voted else st.just([])
    shown = data.draw(st.dictionaries(st.sampled_from(sorted(answers)), examples))
    contexts, labels, pool, rollouts = tables(answers, shown, seed)
    got = answer_echo(contexts, labels, pool, rollouts)

    pairs = [(target, example) for target, examples in shown.items() for example in examples]
    texts = {row[0]: row[1] for row in labels.iter_rows() if row[3] is not None}
    seen = {(key, sample): order for key, sample, order in rollouts.collect().iter_rows()}
    own = dict(pool.iter_rows())
    choice = {key: (index, rep) for key, _, index, rep in labels.iter_rows() if index is not None}
    asked = {key: own[key].index(index) for key, (index, _) in choice.items()}
    told = {key: seen[key, rep].index(index) for key, (index, rep) in choice.items()}
    for name, expected in (("answer_echo", naive(pairs, texts, texts)), ("letter_echo", naive(pairs, asked, told))):
        if expected is None:
            assert name not in got
            assert f"{name}_by_chance" not in got
        else:
            assert (got[name], got[f"{name}_by_chance"]) == pytest.approx(expected)


def test_an_echo_above_chance_is_put_into_words():
    answers = {f"q{i}": i % 3 for i in range(12)}
    same = {f"q{i}": [f"q{(i + 3) % 12}"] for i in range(12)}
    notes = answer_echo(*tables(answers, same))
    assert notes["answer_echo"] == 1
    assert notes["answer_echo_by_chance"] == pytest.approx(3 / 11)
    assert "100% of the examples" in notes["warning"]
    assert "27% would by chance: the teacher is told the student's vote" in notes["warning"]
    assert "stem_overlap" in notes["warning"]
    other = {f"q{i}": [f"q{(i + 1) % 12}"] for i in range(12)}
    contexts, labels, pool, rollouts = tables(answers, other)
    pool = pool.with_columns(permutation=pl.lit([0, 1, 2], dtype=pl.List(pl.Int32)))
    notes = answer_echo(contexts, labels, pool, rollouts.with_columns(permutation=pl.lit([0, 1, 2])))
    assert notes["answer_echo"] == notes["letter_echo"] == 0
    assert "warning" not in notes


def test_letters_alone_can_tell_the_vote():
    answers = {f"q{i}": i % 3 for i in range(12)}
    contexts, labels, pool, rollouts = tables(answers, {f"q{i}": [f"q{(i + 4) % 12}"] for i in range(12)})
    # The answer stands at letter i mod 4, so every example shows its own at the target's letter, but another text.
    orders = pl.Series(
        [
            [*others[: i % 4], i % 3, *others[i % 4 :]]
            for i in range(12)
            for others in [[j for j in range(4) if j != i % 3]]
        ],
        dtype=pl.List(pl.Int32),
    )
    pool = pool.with_columns(permutation=orders)
    notes = answer_echo(contexts, labels, pool, rollouts.drop("permutation").join(pool.lazy(), on="id"))
    assert (notes["answer_echo"], notes["letter_echo"]) == (0, 1)
    assert notes["letter_echo_by_chance"] == pytest.approx(2 / 11)
    assert notes["warning"].startswith("100% of the examples show their pseudo-answer at the letter")
    assert "rollouts.permute_options" in notes["warning"]
