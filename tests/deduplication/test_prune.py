"""Every raw question is in the pool or dropped with a reason; what stays is clean; gold is never looked at."""

import polars as pl

from pipeline.deduplication.config import PoolConfig
from pipeline.deduplication.prune import prune
from pipeline.deduplication.schemas import CONTAMINATION, DROPPED, POOL
from pipeline.pool.schemas import RAW_POOL
from pipeline.table import conform

STEMS = [
    "Which enzyme unwinds the double helix before replication starts",
    "Which metal must be stored under kerosene for safety",
    "How does a catalyst change the activation energy of a reaction",
    "Why do winter annuals germinate in late summer and not in spring",
    "What separates fragments of DNA by size in an electric field",
    "Where does the light reaction of photosynthesis take place",
]


def raw(stems, prefix, domain="biology"):
    same = {"kind": "multiple_choice", "level": "", "task": "", "permutation": [0, 1, 2, 3], "domain": domain}
    rows = [
        {
            "id": f"{prefix}{i}",
            "question": stem,
            "options": [f"{stem[-6:]} {x}" for x in "vwxy"],
            "source": f"{prefix}:{i}",
            **same,
        }
        for i, stem in enumerate(stems)
    ]
    return pl.DataFrame(rows, schema=pl.DataFrame(RAW_POOL.empty_table()).schema)


def test_every_question_is_accounted_for_once():
    copy = raw([STEMS[0]], "z").with_columns(question=pl.col("question") + " then")
    pool = pl.concat([raw(STEMS, "a"), copy, raw([f"{stem} today" for stem in STEMS[4:]], "law", "law")])
    evaluation = raw([STEMS[1].upper()], "e").with_columns(options=pool["options"][1:2])
    pruned = prune(pool, evaluation, PoolConfig(out_of_domain=["law"], in_domain_share=0.3))
    assert sorted([*pruned.pool["id"], *pruned.dropped["id"]]) == sorted(pool["id"])
    reasons = dict(pruned.dropped.select("id", "reason").rows())
    twins = dict(pruned.dropped.select("id", "twin").rows())
    assert (reasons["a1"], twins["a1"]) == ("contaminated", "e0")
    assert (reasons["z0"], twins["z0"]) == ("near_duplicate", "a0")
    assert set(pruned.out_of_domain_test["domain"]) <= {"law"}
    for split in (pruned.in_domain_test, pruned.out_of_domain_test):
        assert set(split["id"]) <= set(reasons)
    for rows, schema in ((pruned.pool, POOL), (pruned.dropped, DROPPED), (pruned.contamination, CONTAMINATION)):
        conform(rows, schema, "test")


def test_what_crosses_a_split_is_left_out_of_the_pool():
    # Half of the options make no near-duplicate, but the answer is learnt all the same.
    twins = raw([f"{stem} then" for stem in STEMS], "z", "law")
    twins = twins.with_columns(options=raw(STEMS, "a")["options"].list.head(2))
    pruned = prune(pl.concat([raw(STEMS, "a"), twins]), None, PoolConfig(out_of_domain=["law"]))
    assert pruned.pool.is_empty()
    assert pruned.out_of_domain_test["id"].to_list() == twins["id"].to_list()
    assert pruned.contamination.select("id", "evaluation_id").rows() == [(f"a{i}", f"z{i}") for i in range(6)]
    reasons = pruned.dropped.filter(pl.col("id").str.starts_with("a")).select("reason", "twin").rows()
    assert reasons == [("contaminated", f"z{i}") for i in range(6)]


def test_near_duplicates_can_stay_and_are_named():
    pool = pl.concat(
        [raw(STEMS, "a"), raw([f"{STEMS[0]} then"], "z").with_columns(options=raw(STEMS, "a")["options"][:1])]
    )
    kept = prune(pool, None, PoolConfig(drop_near_duplicates=False))
    assert kept.pool["id"].to_list() == pool["id"].to_list()
    assert kept.pool["group"].to_list() == [*(f"a{i}" for i in range(6)), "a0"]
    assert kept.dropped.is_empty()
    assert prune(pool, None, PoolConfig()).dropped["twin"].to_list() == ["a0"]
