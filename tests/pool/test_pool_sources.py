"""What a path may mean: a file, a folder, a pattern, compressed files, a data set; and its digest."""

import gzip
import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import SourceError
from pipeline.pool import huggingface
from pipeline.pool.config import RawPoolConfig
from pipeline.pool.reader import find_sources, read_rows
from pipeline.pool.source import Source

ROWS = [{"question": f"q{i}", "options": ["a", "b"], "answer": "B", "domain": "d"} for i in range(5)]
TEXT = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def read(path: object, **settings):
    config = RawPoolConfig(path=str(path), **settings)
    return list(read_rows(find_sources(config), config))


def places(rows) -> list[str]:
    return [row.place for row in rows]


def test_compressed_files_give_the_same_rows(tmp_path: Path, suffix: str, compress) -> None:
    path = tmp_path / f"pool.jsonl.{suffix}"
    path.write_bytes(compress(TEXT))
    assert [row.values for row in read(path)] == ROWS
    # A concatenation of compressed files is one, as the tools of all four formats have it.
    path.write_bytes(compress(TEXT) + compress(TEXT))
    assert [row.values for row in read(path)] == [*ROWS, *ROWS]
    if suffix in ("bz2", "xz"):
        path.write_bytes(compress(TEXT) + bytes(20_000) + compress(TEXT) + bytes(4))
        assert [row.values for row in read(path)] == [*ROWS, *ROWS]


@pytest.mark.parametrize("format_", ["jsonl", "csv"])
def test_stream_cut_off_or_none_at_all_is_a_row(tmp_path: Path, suffix: str, compress, format_: str) -> None:
    lines = TEXT if format_ == "jsonl" else b"question,answer\n" + b"".join(b"q%d,A\n" % i for i in range(2_000))
    path = tmp_path / f"pool.{format_}.{suffix}"
    path.write_bytes(compress(lines)[:-4])
    *good, last = read(path)
    assert last.parsed.reason == "damaged_file"
    assert last.line >= len(good) + 1
    assert all(row.values for row in good)
    path.write_bytes(lines)  # named like a compressed file, but none
    (only,) = read(path)
    assert only.parsed.reason == "damaged_file"
    assert only.place == f"pool.{format_}.{suffix}:1"


def test_folder_takes_known_endings_at_any_depth_in_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".cache").mkdir()
    (tmp_path / "b" / "1.jsonl.gz").write_bytes(gzip.compress(TEXT))
    (tmp_path / "a.csv").write_bytes(b"question\nwhy?\n")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "c.parquet")
    for ignored in ("README.md", ".hidden.jsonl", ".cache/x.jsonl"):
        (tmp_path / ignored).write_bytes(TEXT)
    rows = read(tmp_path)
    assert places(rows)[:2] == ["a.csv:2", "b/1.jsonl.gz:1"]
    assert places(rows)[-1] == "c.parquet:5"
    assert len(read(tmp_path, limit=8)) == 8
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"folder without files ending in \.jsonl"):
        read(tmp_path / "empty")


def test_what_a_folder_passes_over_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.jsonl").write_bytes(TEXT)
    assert len(read(tmp_path)) == 5
    assert not caplog.records
    (tmp_path / "b.json").write_bytes(TEXT)
    (tmp_path / "broken.jsonl").symlink_to("nowhere.jsonl")
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "linked.jsonl").symlink_to("folder/a.jsonl")
    assert len(read(tmp_path)) == 10
    (record,) = caplog.records
    assert "left out 3 files" in record.getMessage()
    assert record.getMessage().endswith("the first 'b.json'")


def test_pattern_names_files_from_its_fixed_part(tmp_path: Path) -> None:
    (tmp_path / "x" / "y").mkdir(parents=True)
    for name in ("x/1.jsonl", "x/2.jsonl", "x/y/3.jsonl", "x/4.txt"):
        (tmp_path / name).write_bytes(TEXT)
    assert {row.source for row in read(f"{tmp_path}/x/*.jsonl")} == {"1.jsonl", "2.jsonl"}
    assert {row.source for row in read(f"{tmp_path}/**/[23].jsonl")} == {"x/2.jsonl", "x/y/3.jsonl"}
    with pytest.raises(SourceError, match="no file matches"):
        read(f"{tmp_path}/x/*.csv")
    with pytest.raises(SourceError, match=r"ending '\.txt'"):
        read(f"{tmp_path}/x/*")
    (tmp_path / "x" / "[1].jsonl").write_bytes(TEXT)
    assert {row.source for row in read(f"{tmp_path}/x/[1].jsonl")} == {"[1].jsonl"}


def test_damaged_file_among_others_costs_only_itself(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(b"no gzip")
    (tmp_path / "b.jsonl").write_bytes(TEXT)
    rows = read(tmp_path)
    assert places(rows) == ["a.jsonl.gz:1", *(f"b.jsonl:{n}" for n in range(1, 6))]


def test_digest_follows_every_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(TEXT)
    before = Source("s", tmp_path).digest()
    assert before == Source("other", tmp_path).digest()
    (tmp_path / "b.jsonl").write_bytes(TEXT)
    assert Source("s", tmp_path).digest() != before
    assert Source("s", tmp_path, revision="abc").digest() == "abc"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    rows = datasets.Dataset.from_list([row | {"level": "L1", "unused": 1} for row in ROWS])
    datasets.DatasetDict(train=rows, test=rows.select([1])).save_to_disk(tmp_path / "split")
    rows.save_to_disk(tmp_path / "whole")
    rows.to_parquet(tmp_path / "plain" / "train.parquet")
    return tmp_path


@pytest.mark.parametrize("folder", ["split", "whole", "plain"])
def test_data_set_folder_is_read_in_configured_columns(saved: Path, folder: str) -> None:
    rows = read(saved / folder, format="huggingface")
    assert [row.values for row in rows] == [row | {"level": "L1"} for row in ROWS]
    assert places(rows) == [f"{folder}:{n}" for n in range(1, 6)]


def test_split_is_chosen_and_a_missing_one_named(saved: Path) -> None:
    assert [row.values["question"] for row in read(saved / "split", format="huggingface", split="test")] == ["q1"]
    for folder in ("split", "plain"):
        with pytest.raises(SourceError, match=r"cannot be opened .*validation.*raw_pool\.split"):
            read(saved / folder, format="huggingface", split="validation")
    with pytest.raises(SourceError, match=r"no column 'stem'.*raw_pool.question_column"):
        read(saved / "whole", format="huggingface", question_column="stem")


@pytest.mark.parametrize("path", ["hf://datasets/owner/name", "owner/name"])
def test_hub_out_of_reach_is_one_line(path: str) -> None:
    with pytest.raises(SourceError, match=r"data set 'owner/name' cannot be opened .*needs a network") as caught:
        read(path, format="huggingface")
    assert "\n" not in str(caught.value)


def test_hub_data_set_is_streamed_at_the_commit_found(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    class Hub:
        def dataset_info(self, repo_id, revision):
            asked["info"] = (repo_id, revision)
            return type("Info", (), {"sha": "c0ffee"})

    def load_dataset(path, **settings):
        asked["load"] = (path, settings)
        return datasets.load_dataset(str(saved / "plain"), split="train", streaming=True)

    monkeypatch.setattr(huggingface, "HfApi", Hub)
    monkeypatch.setattr(huggingface, "load_dataset", load_dataset)
    config = RawPoolConfig(path="hf://datasets/owner/name", subset="hard", split="test", revision="v1")
    (source,) = find_sources(config)
    assert source.digest() == "c0ffee"
    assert places(read_rows([source], config)) == [f"owner/name:{n}" for n in range(1, 6)]
    settings = {"name": "hard", "split": "test", "revision": "c0ffee", "streaming": True}
    assert asked == {"info": ("owner/name", "v1"), "load": ("owner/name", settings)}
