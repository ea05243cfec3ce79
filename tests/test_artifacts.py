"""Artifacts are whole or absent, checked on write and read, and noticed when changed."""

import polars as pl
import pyarrow.parquet as pq
import pytest

from pipeline.artifacts import ArtifactStore
from pipeline.errors import ArtifactError
from pipeline.schemas import ARTIFACTS
from pipeline.table import SCHEMA_VERSION

ROWS = pl.DataFrame({"source": ["f"], "line": [1], "reason": ["too_long"], "detail": ["d"], "raw": ["r"]})


def write(store, rows=ROWS, fingerprint="f"):
    with store.write("quarantine", fingerprint, {"config": {}}) as writer:
        writer.append("quarantine", rows)


def test_what_is_written_is_read(tmp_path):
    store = ArtifactStore(tmp_path)
    write(store)
    assert store.read("quarantine").equals(ROWS)
    assert store.current("quarantine", "f").rows == {"quarantine": 1}
    assert store.current("quarantine", "other") is None


def test_an_error_leaves_the_last_artifact_and_nothing_else(tmp_path):
    store = ArtifactStore(tmp_path)
    write(store)
    with pytest.raises(RuntimeError), store.write("quarantine", "g", {}) as writer:
        writer.append("quarantine", ROWS)
        raise RuntimeError
    assert store.current("quarantine", "f") is not None
    assert {path.name for path in tmp_path.iterdir()} == {"quarantine", ".quarantine.lock"}


def test_a_discarded_artifact_is_not_stored(tmp_path):
    store = ArtifactStore(tmp_path)
    with store.write("quarantine", "f", {}) as writer:
        writer.discarded = True
    assert store.manifest("quarantine") is None


def test_same_rows_same_bytes(tmp_path):
    first, second = ArtifactStore(tmp_path / "a"), ArtifactStore(tmp_path / "b")
    write(first)
    write(second, fingerprint="other")
    assert first.path("quarantine").read_bytes() == second.path("quarantine").read_bytes()
    assert first.require("quarantine").digest == second.require("quarantine").digest


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROWS.drop("raw"), "not the declared"),
        (ROWS.with_columns(raw=pl.lit(None, dtype=pl.String)), "'raw' holds nulls"),
        (ROWS.with_columns(raw=pl.Series([["r"]])), "quarantine/quarantine"),
    ],
)
def test_rows_that_do_not_fit_the_schema_are_refused(tmp_path, rows, message):
    with pytest.raises(ArtifactError, match=message):
        write(ArtifactStore(tmp_path), rows)


def test_changed_files_and_missing_artifacts_are_noticed(tmp_path):
    store = ArtifactStore(tmp_path)
    with pytest.raises(ArtifactError, match="materialize 'quarantine' first"):
        store.read("quarantine")
    write(store)
    store.path("quarantine").write_bytes(b"damaged")
    assert store.current("quarantine", "f") is None
    with pytest.raises(ArtifactError, match="not Parquet"):
        store.read("quarantine")


def shard(number):
    ids = pl.DataFrame({"id": [f"q{number}"], "sample": [0]})
    neurons = pl.Series([[3, 9 + number]], dtype=pl.List(pl.Int32))
    return {table: pl.DataFrame(schema.empty_table()) for table, schema in ARTIFACTS["neuron_scores"].items()} | {
        "neuron_scores": ids.with_columns(neurons=neurons, scores=pl.Series([[0.5, 0.25]])),
        "unscored_rollouts": ids.with_columns(reason=pl.lit("r"), detail=pl.lit("d")),
    }


def write_shards(store, numbers, fingerprint="f", stop=False):
    kept = []
    with store.write("neuron_scores", fingerprint, {}, resumable=True) as writer:
        writer.footer = {"fingerprint": fingerprint}
        for number in numbers:
            kept.append(writer.has_shard(number))
            if not kept[-1]:
                writer.write_shard(number, shard(number))
        if stop:
            raise KeyboardInterrupt
    return kept


def test_shards_are_one_table(tmp_path):
    store = ArtifactStore(tmp_path)
    write_shards(store, range(3))
    assert store.read("neuron_scores")["id"].to_list() == ["q0", "q1", "q2"]
    rows = dict.fromkeys(ARTIFACTS["neuron_scores"], 0) | {"neuron_scores": 3, "unscored_rollouts": 3}
    assert store.require("neuron_scores").rows == rows
    for path in store.files("neuron_scores"):
        footer = pq.read_metadata(path).metadata
        assert {k: footer[k] for k in (b"artifact", b"schema_version", b"fingerprint")} == {
            b"artifact": b"neuron_scores",
            b"schema_version": str(SCHEMA_VERSION).encode(),
            b"fingerprint": b"f",
        }
    assert store.current("neuron_scores", "f") is not None
    store.files("neuron_scores")[1].unlink()
    assert store.current("neuron_scores", "f") is None


def test_a_run_that_was_cut_off_goes_on_where_it_was(tmp_path):
    whole, cut = ArtifactStore(tmp_path / "whole"), ArtifactStore(tmp_path / "cut")
    write_shards(whole, range(3))
    with pytest.raises(KeyboardInterrupt):
        write_shards(cut, range(2), stop=True)
    assert cut.manifest("neuron_scores") is None
    half_written = tmp_path / "cut" / ".neuron_scores.part" / "neuron_sizes.parquet" / "shard-00001.parquet"
    half_written.rename(half_written.with_suffix(".part"))
    assert write_shards(cut, range(3)) == [True, False, False]
    assert cut.require("neuron_scores").digests == whole.require("neuron_scores").digests


def test_readers_take_the_shards_of_the_manifest_and_no_others(tmp_path):
    store = ArtifactStore(tmp_path)
    write_shards(store, range(3))
    files = store.files("neuron_scores")
    files[0].with_name("copy.parquet").write_bytes(files[0].read_bytes())
    assert store.read("neuron_scores")["id"].to_list() == ["q0", "q1", "q2"]
    files[1].unlink()
    with pytest.raises(ArtifactError, match=r"shard-00001.*missing.*materialize 'neuron_scores' again"):
        store.read("neuron_scores")


@pytest.mark.parametrize("spoil", ["truncated", "empty", "of another number", "of another run"])
def test_a_shard_that_is_not_what_its_name_says_is_made_again(tmp_path, spoil):
    store = ArtifactStore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        write_shards(store, range(2), stop=True)
    folder = tmp_path / ".neuron_scores.part" / "neuron_scores.parquet"
    first, second = (folder / f"shard-{number:05}.parquet" for number in range(2))
    if spoil == "of another run":
        table = pq.read_table(first)
        pq.write_table(table.replace_schema_metadata(table.schema.metadata | {b"fingerprint": b"other"}), first)
    else:
        content = first.read_bytes()
        first.write_bytes({"truncated": content[:-9], "empty": b"", "of another number": second.read_bytes()}[spoil])
    assert write_shards(store, range(2)) == [False, True]
    assert store.read("neuron_scores")["id"].to_list() == ["q0", "q1"]


def test_two_runs_do_not_write_one_artifact(tmp_path):
    store = ArtifactStore(tmp_path)
    with store.write("quarantine", "f", {}) as writer:
        writer.append("quarantine", ROWS)
        with pytest.raises(ArtifactError, match="another run is writing 'quarantine'"):
            write(ArtifactStore(tmp_path), fingerprint="g")
    assert store.current("quarantine", "f") is not None


def test_a_store_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match=r"file/run cannot be written .*--store"):
        write(ArtifactStore(tmp_path / "file" / "run"))


def test_shards_of_another_fingerprint_are_not_kept(tmp_path):
    store = ArtifactStore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        write_shards(store, range(2), stop=True)
    assert write_shards(store, range(2), fingerprint="g") == [False, False]


def test_neuron_ids_are_stored_as_differences_and_read_by_duckdb(tmp_path):
    duckdb = pytest.importorskip("duckdb")
    store = ArtifactStore(tmp_path)
    write_shards(store, range(2))
    columns = pq.read_metadata(store.files("neuron_scores")[0]).row_group(0)
    encodings = {columns.column(i).path_in_schema: columns.column(i).encodings for i in range(columns.num_columns)}
    assert "DELTA_BINARY_PACKED" in encodings["neurons.list.element"]
    assert "BYTE_STREAM_SPLIT" in encodings["scores.list.element"]
    assert "RLE_DICTIONARY" in encodings["id"]
    query = f"select list_sum(scores), list_max(neurons) from '{store.path('neuron_scores')}/*.parquet' order by 2"
    assert duckdb.sql(query).fetchall() == [(0.75, 9), (0.75, 10)]
