"""Rows of equal recipe and key are taken over, the others computed, and the result is as if all had been computed."""

import random
import shutil
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_store import CATALOGUE, SHARDED, make, rows_of, start, wait_for

from pipeline.store import shards
from pipeline.store.shards import ShardedTables, shard_number
from pipeline.store.store import Store
from pipeline.store.writer import ArtifactWriter


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(shards, "QUESTIONS_PER_SHARD", 8)


def pool(n_questions, start=0):
    return {f"q{number}": "k" for number in range(start, start + n_questions)}


def is_plain_computation(found, keys):
    """Compare with all rows computed at once; within a question and sample their order counts."""
    expected = rows_of(sorted(keys), keys)
    return all(
        found.read(table).sort(order, maintain_order=True).rows()
        == expected[table].sort(order, maintain_order=True).rows()
        for table, order in (("scores", ["id", "sample"]), ("reasons", ["id"]))
    )


def are_same(first, second):
    """Compare the shards' rows; footers name the recipe."""
    return all(
        [shard.collect().rows() for shard in first.scan_shards(table)]
        == [shard.collect().rows() for shard in second.scan_shards(table)]
        for table in SHARDED
    )


def computed(calls):
    return sorted(question for call in calls for question in call)


def test_all_questions_are_computed_once_and_lie_in_the_shard_of_their_hash(store):
    keys = pool(100)
    assert computed(make(store, keys, "f")) == sorted(keys)
    found = store.find("scores", "f")
    assert is_plain_computation(found, keys)
    assert [path.name for path in found.files()] == [path.name for path in found.files("reasons")]
    for path, shard in zip(found.files(), found.scan_shards(), strict=True):
        rows = shard.collect()
        assert {shard_number(question, 16) for question in rows["id"]} == {int(path.stem.removeprefix("shard-"))}
        assert rows.equals(rows.sort("id", "sample"))


def test_a_shard_splits_in_two(store):
    numbers = [(shard_number(f"q{number}", 8), shard_number(f"q{number}", 16)) for number in range(200)]
    assert {after // 2 == before for before, after in numbers} == {True}
    assert len({after for _, after in numbers}) == 16


def test_what_is_made_again_of_the_same_recipe_and_keys_has_the_same_bytes(store):
    for fingerprint in "fg":
        make(store, pool(50), fingerprint)
    first, second = (store.find("scores", fingerprint).manifest for fingerprint in "fg")
    assert first.digests == second.digests


def test_the_order_of_questions_does_not_matter(store):
    keys = pool(50)
    make(store, keys, "f")
    make(store, dict(reversed(keys.items())), "g", recipe="other")
    assert are_same(*(store.find("scores", fingerprint) for fingerprint in "fg"))


def test_new_and_changed_questions_are_computed_and_removed_ones_disappear(store):
    keys = pool(100)
    make(store, keys, "f")
    changed = {**pool(90), **pool(5, start=200), "q3": "other", "q4": "other"}
    assert computed(make(store, changed, "g")) == sorted(["q3", "q4", *pool(5, start=200)])
    found = store.find("scores", "g")
    assert is_plain_computation(found, changed)
    assert set(found.read()["id"]) == changed.keys()
    assert computed(make(store, keys, "h")) == []
    assert are_same(*(store.find("scores", fingerprint) for fingerprint in "fh"))


def test_few_new_questions_are_computed_in_few_calls(store, monkeypatch):
    monkeypatch.setattr(shards, "QUESTIONS_PER_SHARD", 32)
    make(store, pool(1000), "f")
    calls = make(store, pool(1050), "g")
    assert computed(calls) == sorted(pool(50, start=1000))
    assert len(calls) <= 4
    assert len(store.find("scores", "g").files()) > 30


def test_another_recipe_takes_nothing(store):
    make(store, pool(20), "f")
    assert computed(make(store, pool(20), "g", recipe="other")) == sorted(pool(20))
    assert store.find("scores", "f").manifest.recipes != store.find("scores", "g").manifest.recipes


def test_another_schema_takes_nothing(store):
    make(store, pool(20), "f")
    tables = dict(CATALOGUE["scores"])
    tables["reasons"] = tables["reasons"].append(tables["scores"].field("sample").with_name("n"))
    wider = Store(store.root, CATALOGUE | {"scores": tables})
    with patch("small_store.rows_of", lambda *given: widen(rows_of(*given))):
        assert computed(make(wider, pool(20), "g")) == sorted(pool(20))


def widen(rows):
    return rows | {"reasons": rows["reasons"].with_columns(n=pl.lit(0))}


def test_the_pool_may_grow_over_a_power_of_two_and_shrink_again(store):
    for fingerprint, n_questions, n_new in (("f", 60, 60), ("g", 200, 140), ("h", 30, 0)):
        calls = make(store, pool(n_questions), fingerprint)
        assert len(computed(calls)) == n_new
        assert is_plain_computation(store.find("scores", fingerprint), pool(n_questions))
    assert len({len(store.find("scores", fingerprint).files()) for fingerprint in "fgh"}) == 3


def test_rows_may_come_from_several_artifacts(store):
    make(store, pool(20), "f")
    make(store, pool(20, start=20), "g")
    assert make(store, pool(40), "h") == []
    assert is_plain_computation(store.find("scores", "h"), pool(40))


def test_no_questions_are_empty_tables(store):
    assert make(store, {}, "f") == []
    assert store.find("scores", "f").manifest.rows == {"scores": 0, "reasons": 0, "totals": 0}
    assert store.find("scores", "f").read().is_empty()
    make(store, pool(3), "g")
    assert make(store, {}, "h") == []


def test_a_damaged_artifact_gives_no_rows(store):
    make(store, pool(20), "f")
    store.find("scores", "f").files("reasons")[0].write_bytes(b"damaged")
    assert computed(make(store, pool(20), "g")) == sorted(pool(20))


def test_no_more_rows_than_a_pieces_are_held(store, monkeypatch):
    """However many questions there are, a call computes those of few shards, and a written shard is one."""
    make(store, pool(300), "f")
    calls = make(store, pool(1200), "g")
    assert max(map(len, calls)) <= 4 * shards.QUESTIONS_PER_SHARD
    assert max(shard.collect()["id"].n_unique() for shard in store.find("scores", "g").scan_shards()) <= 24
    read = []
    monkeypatch.setattr(shards._Known, "rows", spy(read, shards._Known.rows))
    assert make(store, pool(1200), "h") == []
    assert max(read) <= 24


def spy(read, rows):
    def spied(known, table, ids):
        read.append(len(ids))
        return rows(known, table, ids)

    return spied


def cut_off_after(store, keys, fingerprint, n_writes):
    """Make the artifact, but stop before a write; return whether it came to that."""
    write, left = ArtifactWriter.write_shard, [n_writes]

    def write_shard(writer, *arguments, **footer):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        write(writer, *arguments, **footer)

    with patch.object(ArtifactWriter, "write_shard", write_shard):
        try:
            make(store, keys, fingerprint)
        except KeyboardInterrupt:
            return True
    return False


@pytest.mark.parametrize("n_writes", [0, 1, 4, 5, 11, 20])
def test_what_is_cut_off_within_a_piece_of_several_shards_ends_with_the_same_bytes(store, tmp_path, n_writes):
    keys = pool(100) | {"q3": "other"}
    make(store, pool(95), "f")
    shutil.copytree(store.root, tmp_path / "whole")
    whole = Store(tmp_path / "whole", CATALOGUE)
    calls = make(whole, keys, "g")
    assert cut_off_after(store, keys, "g", n_writes)
    assert store.find("scores", "g") is None
    again = make(store, keys, "g")
    assert all(call in calls for call in again)
    assert store.find("scores", "g").manifest.digests == whole.find("scores", "g").manifest.digests


def test_pieces_that_are_there_are_not_computed_again(store):
    assert cut_off_after(store, pool(100), "f", 12)
    assert len(computed(make(store, pool(100), "f"))) < 80


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_bytes(store, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "QUESTIONS_PER_SHARD", 4)
    whole, moments, n_kills = Store(tmp_path / "whole", CATALOGUE), random.Random(0), 0
    make(whole, pool(600), "f")
    part = store.artifacts / "scores" / ".f.0.part"
    while n_kills < 5:
        before = len(list(part.glob("scores.parquet/shard-*.parquet")))
        process = start("scores", store.root, 600)
        wait_for(lambda before=before: len(list(part.glob("scores.parquet/shard-*.parquet"))) > before)
        time.sleep(moments.uniform(0, 0.1))
        assert process.poll() is None, process.stderr.read()
        process.kill()
        process.wait()
        assert store.find("scores", "f") is None
        n_kills += 1
    assert start("scores", store.root, 600).wait(60) == 0
    assert store.find("scores", "f").manifest.digests == whole.find("scores", "f").manifest.digests
    assert {path.name for path in (store.artifacts / "scores").iterdir()} == {"f", ".lock"}


POOLS = st.dictionaries(st.integers(0, 40).map("q{}".format), st.sampled_from("ab"), max_size=30)


@settings(max_examples=25)
@given(st.lists(st.tuples(POOLS, st.integers(0, 30)), min_size=1, max_size=4))
def test_whatever_changes_and_wherever_it_is_cut_off_the_result_is_the_plain_computation(steps):
    with tempfile.TemporaryDirectory() as folder, patch.object(shards, "QUESTIONS_PER_SHARD", 3):
        store, made = Store(Path(folder), CATALOGUE), {}
        for number, (keys, n_writes) in enumerate(steps):
            if cut_off_after(store, keys, f"f{number}", n_writes):
                computed_again = computed(make(store, keys, f"f{number}"))
                assert len(computed_again) == len(set(computed_again))
                assert not {question for question in computed_again if (question, keys[question]) in made}
            made |= dict.fromkeys(keys.items())
            assert is_plain_computation(store.find("scores", f"f{number}"), keys)


def test_progress_counts_every_question_once(store, monkeypatch):
    bars = []

    class Bar:
        def __init__(self, total, **_):
            self.total, self.n = total, 0
            bars.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, n):
            self.n += n

    monkeypatch.setattr(shards, "tqdm", Bar)
    make(store, pool(50), "f")
    make(store, pool(60), "g")
    assert cut_off_after(store, pool(200), "h", 9)
    make(store, pool(200), "h")
    assert [(bar.n, bar.total) for bar in (*bars[:2], bars[-1])] == [(50, 50), (60, 60), (200, 200)]


def test_an_executor_does_the_work(store):
    class Backwards:
        def map(self, work, pieces):
            for piece in reversed(pieces):
                work(piece)
                yield piece

    keys = pool(60)
    make(store, keys, "f")
    with store.write("scores", "g", {}, {}) as writer:
        tables = ShardedTables(writer, SHARDED, lambda recipe: [], Backwards())
        tables.make(keys, {"recipe": "r"}, lambda questions, done: rows_of(questions, keys))
    assert are_same(*(store.find("scores", fingerprint) for fingerprint in "fg"))
