"""Near-duplicates are found, other fillings of a template are not, and the order of rows changes nothing."""

import random
from itertools import combinations

import numpy as np
import polars as pl
import pytest

from pipeline.deduplication import near_duplicates as module
from pipeline.deduplication.config import PoolConfig
from pipeline.deduplication.features import Features, RarityWeights
from pipeline.deduplication.near_duplicates import near_duplicates
from pipeline.paths import PROJECT_ROOT
from pipeline.pool.config import RawPoolConfig
from pipeline.pool.ingest import Ingestion

VOCABULARY = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in "rstvz"]


def table(*rows):
    return pl.DataFrame(
        [(f"{i:04}", question, list(options)) for i, (question, options) in enumerate(rows)],
        schema={"id": pl.String, "question": pl.String, "options": pl.List(pl.String)},
        orient="row",
    )


def prose(n, seed=0):
    rng = random.Random(seed)
    return [(" ".join(rng.choices(VOCABULARY, k=20)), rng.choices(VOCABULARY, k=4)) for _ in range(n)]


def group_of(rows, **settings):
    return near_duplicates(table(*rows), PoolConfig(**settings))["group"].to_list()


def test_a_word_changed_is_a_near_duplicate_of_the_smallest_id():
    rows = prose(50)
    question, options = rows[7]
    rows += [(question.replace(question.split()[3], "other"), options[::-1])]
    groups = near_duplicates(table(*rows), PoolConfig())
    assert groups["group"].to_list()[-1] == "0007"
    assert groups["similarity"].to_list()[-1] < 1
    assert groups.filter(pl.col("id") != pl.col("group")).height == 1


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("{question} 7", "abcd"),  # another number
        ("{question} 5", "wxyz"),  # the same stem, other options
    ],
)
def test_other_numbers_or_options_make_another_question(question, options):
    rows = prose(50)
    stem = rows[0][0]
    rows[0] = (f"{stem} 5", list("abcd"))
    rows.append((question.format(question=stem), list(options)))
    assert len(set(group_of(rows))) == 51


def test_the_order_of_rows_does_not_matter():
    rows = prose(60)
    rows += [(question + " indeed", options) for question, options in rows[:20]]
    pool = table(*rows)
    assert near_duplicates(pool, PoolConfig()).equals(near_duplicates(pool.reverse(), PoolConfig()))


def test_groups_are_transitive():
    question, options = prose(1)[0]
    extra = VOCABULARY[:4]
    rows = [(" ".join([question, *extra[:n]]), options) for n in range(5)] + prose(80, seed=1)
    config = PoolConfig(near_duplicate_threshold=0.8)
    pool = table(*rows)
    features = [Features.of(*row, 2) for row in rows]
    weights = RarityWeights(features)
    assert module.similarity(features[0], features[4], weights) < 0.8
    assert near_duplicates(pool, config)["group"].to_list()[:5] == ["0000"] * 5


def test_signatures_estimate_the_weighted_jaccard_index():
    rows = [(f"what of the following is {question}", options) for question, options in prose(40)]
    rows.append((rows[0][0], rows[1][1]))
    rows[0] = (f"what of the following is {rows[2][0]}", rows[0][1])
    features = [Features.of(*row, 2) for row in rows]
    weights = RarityWeights(features)
    signatures = module._signatures(features, weights, PoolConfig(n_permutations=2048))
    estimate = (signatures[0] == signatures[-1]).mean()
    assert abs(estimate - weights.jaccard(features[0].all, features[-1].all)) < 0.05


def test_bands_find_a_pair_at_the_threshold():
    for threshold in (0.5, 0.65, 0.9):
        config = PoolConfig(near_duplicate_threshold=threshold)
        rows = module._band_rows(config)
        assert 1 - (1 - threshold**rows) ** (128 // rows) >= 0.99
        assert 1 - (1 - threshold ** (rows + 1)) ** (128 // (rows + 1)) < module.RECALL


@pytest.mark.parametrize(("word", "other"), [("", "not"), ("increases", "decreases"), ("Japan", "France")])
def test_opposites_and_other_names_make_another_question(word, other):
    (question, options), *rows = prose(50)
    rows += [(f"why {question} {change} so", options) for change in (word, other)]
    assert len(set(group_of(rows))) == 51


def test_all_members_of_a_small_bucket_are_compared():
    alike = np.zeros((10, 128), dtype=np.uint32)
    assert sorted(module._candidates(alike, PoolConfig())) == list(combinations(range(10), 2))


def test_large_buckets_hold_together():
    question, options = prose(1)[0]
    rows = [(f"{question} {VOCABULARY[i]}", options) for i in range(3 * module.NEIGHBOURS)] + prose(300, seed=1)
    assert set(group_of(rows)[: 3 * module.NEIGHBOURS]) == {"0000"}


def test_empty_pool():
    assert near_duplicates(table(), PoolConfig()).is_empty()


def test_the_embedded_pool_has_no_near_duplicates():
    path = PROJECT_ROOT / "data" / "reference" / "pool.jsonl"
    pool = pl.concat([batch.raw_pool for batch in Ingestion(RawPoolConfig(path=str(path)))])
    groups = near_duplicates(pool, PoolConfig())
    assert np.array_equal(groups["id"], groups["group"])
