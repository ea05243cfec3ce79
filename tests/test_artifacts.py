"""Artifacts are whole or absent, checked on write and read, and noticed when changed."""

import polars as pl
import pytest

from pipeline.artifacts import ArtifactStore
from pipeline.errors import ArtifactError

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
    assert [path.name for path in tmp_path.iterdir()] == ["quarantine"]


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


def test_duckdb_reads_lists(tmp_path):
    duckdb = pytest.importorskip("duckdb")
    store = ArtifactStore(tmp_path)
    rows = pl.DataFrame({"id": ["a"], "sample": [0], "neurons": [[3, 9]], "scores": [[0.5, 0.25]]})
    with store.write("neuron_scores", "f", {}) as writer:
        writer.append("neuron_scores", rows)
    found = duckdb.sql(f"select list_sum(scores), len(neurons) from '{store.path('neuron_scores')}'").fetchall()
    assert found == [(0.75, 2)]
