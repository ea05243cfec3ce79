from dataclasses import fields
from typing import get_args

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.selection.config import CuratedSubsetConfig, RuleName
from pipeline.selection.rule import Signals
from pipeline.selection.rules import RULES
from pipeline.selection.schemas import CURATED_SUBSET
from pipeline.selection.subset import select_subset
from pipeline.table import conform


def signals(sizes, shares=None, domains=None):
    """Build signals from {id: [|N| per rollout]}, {id: vote share or None for all_abstain} and {id: domain}."""
    shares, domains = shares or dict.fromkeys(sizes, 1.0), domains or {}
    rows = [(i, s, n, 9 + n % 4 + s, n / 30) for i, counts in sizes.items() for s, n in enumerate(counts)]
    columns = {"id": pl.String, "sample": pl.Int32, "n_neurons": pl.Int32, "n_response_tokens": pl.Int32}
    columns["self_certainty"] = pl.Float64
    sets = [{"id": i, "sample": s, "neurons": list(range(9 * s, 9 * s + n))} for i, s, n, *_ in rows]
    neurons = {"id": pl.String, "neurons": pl.List(pl.Int32)}
    return Signals(
        pool=pl.DataFrame({"id": list(sizes), "domain": [domains.get(i, "") for i in sizes]}),
        pseudo_labels=pl.DataFrame(
            {
                "id": list(shares),
                "state": ["all_abstain" if share is None else "majority" for share in shares.values()],
                "pseudo_answer": [None if share is None else "red" for share in shares.values()],
                "vote_share": [share or 0.0 for share in shares.values()],
                "entropy": [1 - (share or 1.0) for share in shares.values()],
                "n_votes": [0 if share is None else 5 for share in shares.values()],
            }
        ),
        neuron_sizes=pl.DataFrame(rows, schema=columns, orient="row"),
        neuron_scores=pl.LazyFrame(sets, schema=neurons | {"sample": pl.Int32}),
        stem_scores=pl.LazyFrame(sets, schema=neurons).unique("id", keep="first", maintain_order=True),
        beliefs=pl.DataFrame(
            {
                "id": list(sizes),
                "belief_shift": [len(counts) / 10 for counts in sizes.values()],
                "informed_answer": ["red" if sum(counts) % 2 else "blue" for counts in sizes.values()],
                "informed_share": [1 / (1 + sum(counts)) for counts in sizes.values()],
            }
        ),
    )


def shuffled(given_signals, seed):
    def shuffle(table):
        if isinstance(table, pl.LazyFrame):
            return shuffle(table.collect()).lazy()
        return table.sample(fraction=1.0, shuffle=True, seed=seed)

    frames = {field.name: shuffle(getattr(given_signals, field.name)) for field in fields(Signals)[:-1]}
    return Signals(**frames, seed=given_signals.seed)


def kept(rows):
    return set(rows.filter("selected")["id"])


SUPPORT = CuratedSubsetConfig(rule="neuron_support")
MANY = signals(
    sizes={f"q{i:02}": [100 + i % 7, 110 + i % 5] if i % 6 else [] for i in range(40)},
    shares={f"q{i:02}": None if i % 9 == 0 else (i % 5 + 1) / 5 for i in range(40)},
    domains={f"q{i:02}": "abc"[i % 3] for i in range(40)},
)


def test_neuron_support_keeps_the_smallest_mean_of_set_sizes():
    rows = select_subset(
        signals({"a": [10, 30], "b": [19], "c": [21, 22], "d": [1, 60]}), SUPPORT.model_copy(update={"count": 2})
    )
    assert kept(rows) == {"a", "b"}
    by_id = {row["id"]: row for row in rows.to_dicts()}
    assert [by_id[i]["score"] for i in "abcd"] == [20, 19, 21.5, 30.5]
    assert [by_id[i]["rank"] for i in "abcd"] == [2, 1, 3, 4]
    assert [by_id[i]["distance_to_cut"] for i in "abcd"] == [0, -1, 1.5, 10.5]
    assert by_id["b"]["reason"] == "kept: rank 1 of 4, score 19.0, cut at 20.0"
    assert by_id["c"]["reason"] == "not kept: rank 3 of 4, score 21.5, cut at 20.0"


def test_a_rollout_that_no_neuron_supports_does_not_count_as_concentrated_support():
    rows = select_subset(signals({"a": [0], "b": [50]}), SUPPORT.model_copy(update={"count": 1}))
    assert kept(rows) == {"b"}
    by_id = {row["id"]: row for row in rows.iter_rows(named=True)}
    assert "cannot score it (0 scored rollouts" in by_id["a"]["reason"]


def test_vote_share_keeps_the_highest_share_and_cannot_score_abstentions():
    data = signals({"a": [5], "b": [5], "c": [5]}, shares={"a": 0.4, "b": None, "c": 0.8})
    rows = select_subset(data, CuratedSubsetConfig(rule="vote_share", count=1))
    assert kept(rows) == {"c"}
    lost = rows.row(by_predicate=pl.col("id") == "b", named=True)
    assert (lost["score"], lost["rank"], lost["distance_to_cut"]) == (None, None, None)
    assert lost["reason"] == "not kept: rule 'vote_share' cannot score it (1 scored rollouts, vote all_abstain)"


def test_full_keeps_the_whole_pool_whatever_the_budget():
    assert select_subset(MANY, CuratedSubsetConfig(rule="full", fraction=0.1))["selected"].all()
    assert select_subset(MANY, CuratedSubsetConfig(rule="full", count=3))["selected"].all()


def test_random_depends_on_the_seed_and_the_id_alone():
    first, second = (select_subset(MANY, CuratedSubsetConfig(rule="random", seed=seed)) for seed in (0, 1))
    assert kept(first) != kept(second)
    assert first["score"].n_unique() == 40
    part = signals({f"q{i:02}": [1] for i in range(20)})
    scores = select_subset(part, CuratedSubsetConfig(rule="random"))["score"]
    assert scores.equals(first.head(20)["score"])


def test_every_rule_has_a_name_that_the_configuration_knows():
    assert set(RULES) == set(get_args(RuleName))


@pytest.mark.parametrize("per_domain", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_every_question_gets_a_conforming_row_and_row_order_never_matters(rule, per_domain):
    config = CuratedSubsetConfig(rule=rule, per_domain=per_domain)
    rows = select_subset(MANY, config)
    conform(rows, CURATED_SUBSET, rule)
    assert rows["id"].to_list() == sorted(MANY.pool["id"])
    assert rows.equals(select_subset(shuffled(MANY, 7), config))


def test_ties_at_the_cut_are_broken_by_the_seed_not_by_id_or_row():
    tied = signals({f"q{i:02}": [50] for i in range(30)})
    picks = [
        kept(select_subset(tied, CuratedSubsetConfig(rule="neuron_support", count=10, seed=seed))) for seed in range(40)
    ]
    frequency = {i: sum(i in pick for pick in picks) for i in tied.pool["id"]}
    assert max(frequency.values()) < 30
    assert min(frequency.values()) > 2
    left = select_subset(tied, CuratedSubsetConfig(rule="neuron_support", count=10)).filter(~pl.col("selected"))
    assert left["reason"].str.ends_with(", tie broken by seed").all()


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.lists(st.integers(1, 5), max_size=3), min_size=1, max_size=30).filter(any),
    fraction=st.floats(0.01, 1),
    per_domain=st.booleans(),
)
def test_fraction_budgets(sizes, fraction, per_domain):
    ids = [f"q{i}" for i in range(len(sizes))]
    data = signals(dict(zip(ids, sizes, strict=True)), domains={i: "ab"[len(i) % 2] for i in ids})
    rows = select_subset(
        data, CuratedSubsetConfig(rule="neuron_support", fraction=fraction, per_domain=per_domain)
    ).join(data.pool, on="id")
    for group in rows.partition_by("domain") if per_domain else [rows]:
        scored = group.filter(pl.col("score").is_not_null())
        assert group["selected"].sum() == min(scored.height, max(1, round(fraction * group.height)))
        assert sorted(scored["rank"]) == list(range(1, scored.height + 1))
        chosen, others = scored.filter("selected"), scored.filter(~pl.col("selected"))
        if chosen.height:
            assert chosen["score"].max() <= min([*others["score"], float("inf")])
            assert (scored["distance_to_cut"] == scored["score"] - chosen["score"].max()).all()


def test_reasons_name_the_domain_when_the_budget_is_per_domain():
    data = signals({"a": [1], "b": [2], "c": [3]}, domains={"a": "x{}", "b": "y", "c": "y"})
    rows = select_subset(data, CuratedSubsetConfig(rule="neuron_support", count=1, per_domain=True))
    assert kept(rows) == {"a", "b"}
    assert rows["reason"][0] == "kept: rank 1 of 1 in domain 'x{}', score 1.0, cut at 1.0"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (CuratedSubsetConfig(rule="random", count=41), "count = 41 is more than the 40 questions of the pool"),
        (CuratedSubsetConfig(rule="random", count=14, per_domain=True), "count = 14 .* 13 questions of domain 'b'"),
    ],
)
def test_bad_settings_are_refused(config, message):
    with pytest.raises(ConfigError, match=message):
        select_subset(MANY, config)


def test_a_rule_that_scores_nothing_is_refused():
    with pytest.raises(ConfigError, match="can score none of the pool's 2 questions"):
        select_subset(signals({"a": [], "b": []}), SUPPORT)
