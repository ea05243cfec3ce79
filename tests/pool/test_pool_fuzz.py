"""Hostile input: whatever the bytes are, no reader crashes, loses a row without a word, or holds more than a line."""

import gzip
import json
import tracemalloc
from itertools import accumulate
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import SourceError
from pipeline.pool import lines
from pipeline.pool.config import RawPoolConfig
from pipeline.pool.ingest import Ingestion
from pipeline.pool.reader import READERS, find_sources, read_rows

BOUNDED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ENDINGS = {"jsonl": "jsonl", "csv": "csv", "parquet": "parquet", "sciknoweval": "jsonl", "mmlu_pro": "parquet"}
ROWS = [
    {"question": f'Which "{i}",\nof É{i}?', "options": ["a", "b"], "answer": "B", "domain": "d", "src": "s"}
    | {
        "answer_index": 1,
        "category": "d",
        "type": "mcq-2-choices",
        "choices": {"text": ["a", "b"], "label": ["A", "B"]},
    }
    for i in range(8)
]


def serialise(format_: str, folder: Path) -> bytes:
    if ENDINGS[format_] == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
    if ENDINGS[format_] == "csv":
        quoted = ['"' + row["question"].replace('"', '""') + '","[""a"", ""b""]",B\n' for row in ROWS]
        return ("question,options,answer\n" + "".join(quoted)).encode()
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "good.parquet", row_group_size=3)
    return (folder / "good.parquet").read_bytes()


def ingest(path: Path, format_: str) -> Ingestion | None:
    """Ingest a file; None when it was refused as a whole. Rows are counted once each and can be stored."""
    ingestion = Ingestion(RawPoolConfig(path=str(path), format=format_))
    try:
        batches = list(ingestion)
    except SourceError:
        return None
    counts = ingestion.counts
    assert counts.read == counts.kept + counts.quarantined.total() == sum(batch.height for batch in batches)
    for batch in batches:
        batch.quarantine.write_parquet(path.with_name("quarantine.parquet"))
        assert (batch.quarantine["line"] >= 1).all()
        assert batch.quarantine["source"].str.starts_with(path.name).all()
    return ingestion


DAMAGE = st.one_of(
    st.tuples(st.just("cut"), st.floats(0, 1), st.just(b"")),
    st.tuples(
        st.sampled_from(["insert", "overwrite"]),
        st.floats(0, 1),
        st.one_of(
            st.binary(max_size=12), st.sampled_from([b"\x00", b"\xef\xbb\xbf", b"\r\n", b'"', b'""', b"\xe9", b"\n\n"])
        ),
    ),
    st.tuples(st.just("utf-16"), st.just(0.0), st.just(b"")),
    st.tuples(st.just("crlf"), st.just(0.0), st.just(b"")),
)


def spoil(content: bytes, damage: tuple[str, float, bytes]) -> bytes:
    how, where, piece = damage
    at = int(where * len(content))
    if how == "utf-16":
        return content.decode("latin-1").encode("utf-16")
    if how == "crlf":
        return content.replace(b"\n", b"\r\n")
    return content[:at] + piece + (b"" if how == "cut" else content[at + (len(piece) if how == "overwrite" else 0) :])


@pytest.mark.parametrize("format_", ENDINGS)
@BOUNDED
@given(content=st.binary(max_size=200))
def test_any_bytes(tmp_path: Path, format_: str, content: bytes) -> None:
    path = tmp_path / f"pool.{ENDINGS[format_]}"
    path.write_bytes(content)
    ingest(path, format_)


@pytest.mark.parametrize("format_", ENDINGS)
@BOUNDED
@given(damage=DAMAGE)
def test_a_good_file_spoiled(tmp_path: Path, format_: str, damage: tuple[str, float, bytes]) -> None:
    path = tmp_path / f"pool.{ENDINGS[format_]}"
    path.write_bytes(spoil(serialise(format_, tmp_path), damage))
    ingest(path, format_)


@BOUNDED
@given(damage=DAMAGE.filter(lambda damage: damage[0] in ("cut", "insert", "overwrite")))
def test_lines_before_and_after_the_damage_are_kept(tmp_path: Path, damage: tuple[str, float, bytes]) -> None:
    content = serialise("jsonl", tmp_path)
    path = tmp_path / "pool.jsonl"
    path.write_bytes(spoil(content, damage))
    ingestion = ingest(path, "jsonl")
    at = int(damage[1] * len(content))
    n_before = content[:at].count(b"\n")
    n_after = 0 if damage[0] == "cut" else content[at + len(damage[2]) :].count(b"\n") - 1
    assert (ingestion.counts.kept if ingestion else 0) >= n_before + max(n_after, 0)


@BOUNDED
@given(damage=DAMAGE, n_streams=st.sampled_from([1, 2, 4]))
def test_a_compressed_file_spoiled(
    tmp_path: Path, suffix: str, compress, damage: tuple[str, float, bytes], n_streams
) -> None:
    content = serialise("jsonl", tmp_path).splitlines(keepends=True)
    size = len(content) // n_streams
    streams = [compress(b"".join(content[i : i + size])) for i in range(0, len(content), size)]
    ends = list(accumulate(map(len, streams)))
    spoiled = spoil(b"".join(streams), damage)
    path = tmp_path / f"pool.jsonl.{suffix}"
    path.write_bytes(spoiled)
    ingestion = ingest(path, "auto")
    if ingestion and not (damage[0] == "cut" and len(spoiled) in ends):
        assert ingestion.counts.kept == len(content) or ingestion.counts.quarantined


def test_nothing_after_a_stream_is_lost_without_a_word(tmp_path: Path, suffix: str, compress) -> None:
    first, second = (compress(serialise("jsonl", tmp_path)[part]) for part in (slice(500), slice(500, None)))
    flipped = [second[:i] + bytes([second[i] ^ 1]) + second[i + 1 :] for i in range(3)]
    path = tmp_path / f"pool.jsonl.{suffix}"
    for rest in (*flipped, b"garbage", b"\0" * 10_000 + b"garbage"):
        path.write_bytes(first + rest)
        assert ingest(path, "auto").counts.quarantined["damaged_file"] == 1


@BOUNDED
@given(where=st.floats(0, 1), piece=st.binary(min_size=1, max_size=12))
def test_a_data_set_folder_spoiled(tmp_path: Path, where: float, piece: bytes) -> None:
    folder = tmp_path / "saved"
    if not folder.is_dir():
        datasets.Dataset.from_list([{"question": row["question"], "options": ["a", "b"]} for row in ROWS]).save_to_disk(
            folder
        )
        (tmp_path / "good").write_bytes((folder / "data-00000-of-00001.arrow").read_bytes())
    (folder / "data-00000-of-00001.arrow").write_bytes(
        spoil((tmp_path / "good").read_bytes(), ("overwrite", where, piece))
    )
    ingest(folder, "huggingface")


def test_every_reader_is_fuzzed() -> None:
    assert set(READERS) == {*ENDINGS, "huggingface"}


@pytest.mark.parametrize("name", ["long.jsonl", "long.csv", "bomb.jsonl.gz"])
def test_a_line_of_any_length_takes_the_memory_of_a_short_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 2**20)
    path, n_bytes = tmp_path / name, 64 * 2**20
    head, tail = (b"question\n", b"\nnext\n") if name.endswith("csv") else (b"", b'\n{"question": "next"}\n')
    if name.endswith("gz"):
        path.write_bytes(gzip.compress(head + bytes(n_bytes) + tail, 1))
    else:
        with path.open("wb") as file:
            file.write(head)
            file.seek(n_bytes, 1)
            file.write(tail)
    config = RawPoolConfig(path=str(path))
    tracemalloc.start()
    try:
        rows = [getattr(row.parsed, "reason", row.values) for row in read_rows(find_sources(config), config)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rows == ["line_too_long", {"question": "next"}]
    assert peak < 8 * 2**20


def test_a_record_of_any_number_of_lines_is_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 1_000)
    path = tmp_path / "pool.csv"
    path.write_text("question,answer\n" + '"\n",' * 1_000 + "\ngood,B\n")
    config = RawPoolConfig(path=str(path))
    rows = list(read_rows(find_sources(config), config))
    assert rows[0].parsed.reason == "line_too_long"
    assert sum(len(row.raw) for row in rows) >= 3_000
    assert rows[-1].values == {"question": "good", "answer": "B"}
