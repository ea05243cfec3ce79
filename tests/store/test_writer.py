"""Tables are checked on write and read, and stored whole or in shards."""

import os

import polars as pl
import pyarrow.parquet as pq
import pytest
from small_store import CATALOGUE, ROWS, SHARDED, rows_of, write_lines

from pipeline.errors import ArtifactError
from pipeline.store.store import Store
from pipeline.table import SCHEMA_VERSION


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROWS.drop("text"), "lines/lines: columns .* are not the declared"),
        (ROWS.select("text", "line"), "not the declared"),
        (ROWS.with_columns(text=pl.lit(None, dtype=pl.String)), "lines/lines: column 'text' holds nulls"),
        (ROWS.with_columns(text=pl.Series([["a"], ["b"]])), "lines/lines: "),
        (ROWS.with_columns(line=pl.Series([1.5, 2.0])), "lines/lines: "),
        (ROWS.with_columns(line=pl.Series([b"a", b"b"])), "lines/lines: "),
    ],
)
def test_rows_that_do_not_fit_the_schema_are_refused(store, rows, message):
    with pytest.raises(ArtifactError, match=message) as caught:
        write_lines(store, rows=rows)
    assert "\n" not in str(caught.value)
    assert store.find("lines", "f") is None
    with pytest.raises(ArtifactError, match=message), store.write("lines", "f", {}, {}) as writer:
        writer.write_shard(0, {"lines": rows})


def test_rows_are_appended_as_row_groups(store):
    with store.write("lines", "f", {}, {}) as writer:
        for rows in (ROWS, ROWS.clear(), ROWS):
            writer.append("lines", rows)
    found = store.find("lines", "f")
    assert found.read().equals(pl.concat([ROWS, ROWS]))
    assert found.manifest.rows == {"lines": 4}
    assert pq.read_metadata(found.path()).num_row_groups == 2
    assert pq.read_schema(found.path()).field("text").metadata == {b"note": b"text"}


def write_shards(store, numbers, fingerprint="f", stop=False, **footer):
    kept = []
    with store.write("scores", fingerprint, {}, {}) as writer:
        writer.footer |= footer
        for number in numbers:
            kept.append(writer.has_shard(number, SHARDED, fingerprint=fingerprint))
            if not kept[-1]:
                writer.write_shard(number, rows_of([f"q{number}"], {f"q{number}": "k"}), fingerprint=fingerprint)
        if stop:
            raise KeyboardInterrupt
    return kept


def cut_off(store, numbers, **options):
    with pytest.raises(KeyboardInterrupt):
        write_shards(store, numbers, stop=True, **options)
    return store.artifacts / "scores" / ".f.0.part"


def test_shards_are_one_table(store):
    write_shards(store, range(3), n_layers="2")
    found = store.find("scores", "f")
    questions = [f"q{number}" for number in range(3)]
    assert found.read()["id"].unique(maintain_order=True).to_list() == questions
    assert [shard.collect()["id"][0] for shard in found.scan_shards()] == questions
    assert found.manifest.rows == {"scores": 6, "reasons": found.read("reasons").height, "totals": 0}
    assert found.read("totals").is_empty()
    for number, path in enumerate(found.files()):
        footer = pq.read_metadata(path).metadata
        assert {
            key: footer[key] for key in (b"artifact", b"schema_version", b"fingerprint", b"shard", b"n_layers")
        } == {
            b"artifact": b"scores",
            b"schema_version": str(SCHEMA_VERSION).encode(),
            b"fingerprint": b"f",
            b"shard": str(number).encode(),
            b"n_layers": b"2",
        }
    found.files()[1].unlink()
    assert store.find("scores", "f") is None


def test_a_run_that_was_cut_off_goes_on_where_it_was(store, tmp_path):
    whole = Store(tmp_path / "whole", CATALOGUE)
    write_shards(whole, range(3))
    part = cut_off(store, range(2))
    assert store.find("scores", "f") is None
    half_written = part / "reasons.parquet" / "shard-00001.parquet"
    half_written.rename(half_written.with_suffix(".part"))
    (part / "scores.parquet" / "shard-00007.part").write_text("of a process that was killed")
    assert write_shards(store, range(3)) == [True, False, False]
    assert store.find("scores", "f").manifest.digests == whole.find("scores", "f").manifest.digests
    assert {path.name for path in (store.artifacts / "scores").iterdir()} == {"f", ".lock"}


def test_readers_take_the_shards_of_the_manifest_and_no_others(store):
    write_shards(store, range(3))
    found = store.find("scores", "f")
    rows, files = found.read(), found.files()
    files[0].with_name("copy.parquet").write_bytes(files[0].read_bytes())
    assert found.read().equals(rows)
    files[1].unlink()
    with pytest.raises(ArtifactError, match=r"shard-00001.*missing.*materialize 'scores' again"):
        found.read()


@pytest.mark.parametrize("spoil", ["truncated", "empty", "of another number", "of another run", "of another artifact"])
def test_a_shard_that_is_not_what_its_name_says_is_made_again(store, spoil):
    folder = cut_off(store, range(2), n_layers="2") / "scores.parquet"
    first, second = (folder / f"shard-{number:05}.parquet" for number in range(2))
    if spoil in ("of another run", "of another artifact"):
        table, key = pq.read_table(first), {"of another run": b"fingerprint", "of another artifact": b"artifact"}[spoil]
        pq.write_table(table.replace_schema_metadata(table.schema.metadata | {key: b"other"}), first)
    else:
        content = first.read_bytes()
        first.write_bytes({"truncated": content[:-9], "empty": b"", "of another number": second.read_bytes()}[spoil])
    assert write_shards(store, range(2), n_layers="2") == [False, True]
    assert store.find("scores", "f").read()["id"].to_list() == ["q0", "q0", "q1", "q1"]


def test_shards_of_another_fingerprint_are_not_kept(store):
    cut_off(store, range(2))
    assert write_shards(store, range(2), fingerprint="g") == [False, False]
    assert write_shards(store, range(2)) == [True, True]


def test_of_two_that_are_cut_off_the_first_ones_shards_are_kept(store):
    rows = rows_of(["q"], {"q": "k"})
    with (
        pytest.raises(KeyboardInterrupt),
        store.write("scores", "f", {}, {}) as first,
        store.write("scores", "f", {}, {}) as second,
    ):
        first.write_shard(0, rows, fingerprint="f")
        second.write_shard(1, rows, fingerprint="f")
        raise KeyboardInterrupt
    assert {path.name for path in (store.artifacts / "scores").iterdir()} == {".f.0.part"}
    assert write_shards(store, range(2)) == [True, False]


def test_a_discarded_artifact_takes_its_shards_along(store):
    part = cut_off(store, range(2))
    assert part.exists()
    with store.write("scores", "f", {}, {}) as writer:
        writer.discarded = True
    assert not part.exists()


def test_a_shard_has_its_name_only_when_it_is_on_the_disk(store, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.readlink(f"/proc/self/fd/{number}")))
    write_shards(store, [3])
    assert [name.rsplit("/", 2)[1:] for name in synced] == [
        [f"{table}.parquet", "shard-00003.part"] for table in SHARDED
    ]


def test_neuron_ids_are_stored_as_differences_and_read_by_duckdb(store):
    duckdb = pytest.importorskip("duckdb")
    write_shards(store, range(2))
    found = store.find("scores", "f")
    columns = pq.read_metadata(found.files()[0]).row_group(0)
    encodings = {columns.column(i).path_in_schema: columns.column(i).encodings for i in range(columns.num_columns)}
    assert "DELTA_BINARY_PACKED" in encodings["neurons.list.element"]
    assert "BYTE_STREAM_SPLIT" in encodings["scores.list.element"]
    assert "RLE_DICTIONARY" in encodings["id"]
    query = f"select list_sum(scores), list_max(neurons) from '{found.path()}/*.parquet' order by id, sample desc"
    expected = found.read().select(pl.col("scores").list.sum(), pl.col("neurons").list.max()).rows()
    assert duckdb.sql(query).fetchall() == expected
