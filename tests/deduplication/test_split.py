"""The split: no family or group crosses, whole domains, shares, one seed one split."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.deduplication.config import PoolConfig
from pipeline.deduplication.split import split
from pipeline.errors import ConfigError

ROWS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.sampled_from("abc")), min_size=1, max_size=60)


def table(rows):
    return pl.DataFrame(
        [(f"{i:03}", str(group), str(family), domain) for i, (group, family, domain) in enumerate(rows)],
        schema=["id", "group", "family", "domain"],
        orient="row",
    )


@given(ROWS, st.integers(0, 5))
def test_no_group_and_no_family_crosses(rows, seed):
    questions = table(rows)
    config = PoolConfig(in_domain_share=0.99, out_of_domain=[rows[0][2]], split_seed=seed)
    try:
        parts = split(questions, config)
    except ConfigError:
        return
    assert parts.equals(split(questions.reverse(), config))
    parted = questions.join(parts, on="id")
    ood = parted.filter(pl.col("fate") == "out_of_domain_test")
    assert set(ood["id"]) == set(questions.filter(pl.col("domain") == rows[0][2])["id"])
    for column in ("group", "family"):
        sides = parted.filter(pl.col("fate") != "tied_to_test").group_by(column).agg(pl.col("fate").n_unique())
        assert (sides["fate"] == 1).all()


def test_shares_are_met_by_whole_groups():
    questions = table([(i, i // 4, "a") for i in range(400)])
    parts = split(questions, PoolConfig(in_domain_share=0.25))
    assert (parts["fate"] == "in_domain_test").sum() == 100
    assert not parts.equals(split(questions, PoolConfig(in_domain_share=0.25, split_seed=1)))


def test_by_default_nothing_is_held_out():
    assert set(split(table([(0, 0, "a"), (1, 1, "b")]), PoolConfig())["fate"]) == {"pool"}


def test_what_cannot_be_split_is_an_error():
    questions = table([(i, 0, "law") for i in range(10)])
    with pytest.raises(ConfigError, match="in_domain_share"):
        split(questions, PoolConfig(in_domain_share=0.5))
    with pytest.raises(ConfigError, match="did you mean 'law'"):
        split(questions, PoolConfig(out_of_domain=["laws"]))
