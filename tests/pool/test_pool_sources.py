"""What a path may mean: a file, a folder, a pattern, compressed files, a URL, a data set; and its digest."""

import gzip
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFile
from huggingface_hub import HfFileSystem, constants

from pipeline.errors import SourceError
from pipeline.pool import huggingface
from pipeline.pool.config import RawPoolConfig
from pipeline.pool.files import ending
from pipeline.pool.reader import find_sources, read_rows
from pipeline.pool.source import Source

ROWS = [{"question": f"q{i}", "options": ["a", "b"], "answer": "B", "domain": "d"} for i in range(5)]
PUBLISHED = {"answer_index": 1, "cot_content": "", "category": "law", "src": "x"}
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


@pytest.mark.parametrize("suffix", ["bz2", "xz"], indirect=True)
def test_zeros_between_streams_are_refused_not_taken_for_the_end(tmp_path: Path, suffix: str, compress) -> None:
    for rest in (bytes(4), bytes(20_000) + compress(TEXT)):  # padding, which Python's decompressors do not know
        (tmp_path / f"pool.jsonl.{suffix}").write_bytes(compress(TEXT) + rest)
        *good, last = read(tmp_path / f"pool.jsonl.{suffix}")
        assert [row.values for row in good] == ROWS
        assert last.parsed.reason == "damaged_file"


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


def test_links_that_lead_out_of_the_folder_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "private.jsonl").write_bytes(TEXT)
    folder = tmp_path / "dropped"
    folder.mkdir()
    (folder / "own.jsonl").write_bytes(TEXT)
    (folder / "in.jsonl").symlink_to("own.jsonl")
    (folder / "out.jsonl").symlink_to("../private.jsonl")
    for given in (folder, f"{folder}/*.jsonl"):
        caplog.clear()
        assert {row.source for row in read(given)} == {"own.jsonl", "in.jsonl"}
        assert "'out.jsonl'" in caplog.text
    assert len(read(folder / "out.jsonl")) == 5  # named by whoever configures


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
def remote() -> Iterator[Callable[..., str]]:
    """Writes a file into a file system that is not the disk, and returns its URL."""
    file_system = fsspec.filesystem("memory")

    def write(name: str, content: bytes) -> str:
        file_system.pipe(f"/pools/{name}", content)
        return f"memory://pools/{name}"

    yield write
    file_system.rm("/pools", recursive=True)


def test_a_url_is_read_like_the_file_on_disk(tmp_path: Path, remote, suffix: str, compress) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "pool.parquet")
    pq.write_table(pa.Table.from_pylist([row | PUBLISHED for row in ROWS]), tmp_path / "mmlu.pq")
    (tmp_path / "pool.csv").write_bytes(b'question,answer\n"two\nlines",B\nshort\n\xff,A\n')
    (tmp_path / f"pool.jsonl.{suffix}").write_bytes(compress(TEXT))
    (tmp_path / f"cut.jsonl.{suffix}").write_bytes(compress(TEXT)[:-4])
    for path in sorted(tmp_path.iterdir()):
        config = RawPoolConfig(path=str(path))
        on_disk, (source,) = list(read_rows(find_sources(config), config)), find_sources(config)
        (there,) = find_sources(config.model_copy(update={"path": remote(path.name, path.read_bytes())}))
        got = list(read_rows([there], config))
        assert [(row.place, row.values, row.raw) for row in got] == [
            (row.place, row.values, row.raw) for row in on_disk
        ]
        assert there.digest() == source.digest()


def test_a_pattern_of_urls_names_files_from_its_fixed_part(remote) -> None:
    for name in ("x/1.jsonl", "x/y/2.jsonl", "x/3.txt", "x/4.jsonl.gz"):
        url = remote(name, gzip.compress(TEXT) if name.endswith("gz") else TEXT)
    folder = url.rpartition("/")[0]
    assert list(dict.fromkeys(row.source for row in read(f"{folder}/*.jsonl*"))) == ["1.jsonl", "4.jsonl.gz"]
    assert {row.source for row in read(f"{folder}/**/[12].jsonl")} == {"1.jsonl", "y/2.jsonl"}
    with pytest.raises(SourceError, match=r"ending '\.txt'"):
        read(f"{folder}/*")
    for missing in ("*.csv", "none.jsonl", "y"):
        with pytest.raises(SourceError, match=rf"no file at memory://pools/x/{re.escape(missing)}, or none that can"):
            read(f"{folder}/{missing}")


def test_a_file_system_without_its_package_is_one_line(tmp_path: Path) -> None:
    fsspec.register_implementation("lacking", "no_such_package.FileSystem", errtxt="Install no_such_package")
    for url, message in (("lacking://a.jsonl", "Install no_such_package"), ("nosuch://a.jsonl", "nosuch")):
        with pytest.raises(SourceError, match=rf"^{url} cannot be opened \(.*{message}.*\): .*") as caught:
            read(url)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_connection_that_breaks_is_a_row(tmp_path: Path, remote, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    config = RawPoolConfig(path=remote(name, TEXT if name == "a.jsonl" else (tmp_path / name).read_bytes()))
    sources = find_sources(config)

    class LostError(Exception):  # clients have errors that are no OSError
        pass

    def lose(*_: object) -> int:
        raise LostError("connection lost")

    monkeypatch.setattr(MemoryFile, "readinto", lose, raising=False)
    (row,) = read_rows(sources, config.model_copy(update={"format": name.partition(".")[2]}))
    assert row.parsed.reason == "damaged_file"
    assert "connection lost" in row.parsed.detail


class HubHandler(BaseHTTPRequestHandler):
    """Answers as the hub does: what a data set holds, and parts of its files."""

    folder: Path

    def do_GET(self) -> None:
        kind, *rest = self.path.partition("?")[0].removeprefix("/api").strip("/").split("/")
        (_, _, what, _, *inside) = [unquote(part) for part in rest] + [""] * max(0, 4 - len(rest))
        path = self.folder.joinpath(*inside)
        if kind != "datasets" or what not in ("", "revision", "tree", "resolve") or not path.exists():
            return self.send_error(404)
        if what == "resolve":
            start, stop = (int(number) for number in self.headers["Range"].removeprefix("bytes=").split("-"))
            return self.answer(206, path.read_bytes()[start : stop + 1])
        found = {"id": "owner/name", "sha": "c0ffee"}
        if what == "tree":
            found = [
                {"type": "file", "oid": f"hash of {file.name}", "size": file.stat().st_size}
                | {"path": file.relative_to(self.folder).as_posix()}
                for file in sorted(path.iterdir())
            ]
        return self.answer(200, json.dumps(found).encode())

    def answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the one data set of a hub on this machine."""
    HubHandler.folder = tmp_path
    with ThreadingHTTPServer(("127.0.0.1", 0), HubHandler) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setitem(fsspec.config.conf, "hf", {"endpoint": f"http://127.0.0.1:{server.server_port}"})
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        HfFileSystem.clear_instance_cache()
        yield tmp_path
        HfFileSystem.clear_instance_cache()
        server.shutdown()


def test_files_on_the_hub_are_read_in_their_published_layout(hub: Path) -> None:
    (hub / "data").mkdir()
    pq.write_table(pa.Table.from_pylist([row | PUBLISHED for row in ROWS]), hub / "data" / "test-0.parquet")
    (hub / "data" / "b.jsonl").write_bytes(TEXT)
    for url in ("hf://datasets/owner/name/data", "hf://datasets/owner/name@v1/data"):
        for name in ("test-0.parquet", "test-*.parquet"):
            config = RawPoolConfig(path=f"{url}/{name}")
            (source,) = find_sources(config)
            assert source.digest() == "hash of test-0.parquet"
            rows = list(read_rows([source], config))
            assert places(rows) == [f"test-0.parquet:{n}" for n in range(1, 6)]
            assert {(row.values["domain"], row.values["answer"]) for row in rows} == {("law", 1)}
        assert [row.values for row in read(f"{url}/b.jsonl")] == ROWS
        with pytest.raises(SourceError, match=rf"no file at {url}/none.csv"):
            read(f"{url}/none.csv")


def test_a_query_is_no_part_of_the_ending() -> None:
    assert ending("https://host/pool.jsonl.gz?download=1.csv") == ".jsonl"
    assert ending("what?.csv") == ".csv"


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
