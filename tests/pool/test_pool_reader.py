"""Readers: every format gives the same questions, and every bad file one line of explanation."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import SourceError
from pipeline.pool import delimited, lines
from pipeline.pool.config import RawPoolConfig
from pipeline.pool.reader import find_sources, read_rows
from pipeline.pool.source import Problem, SourceRow

ROWS = [
    {"question": 'Which "mica",\nof two?', "options": ["red, dark", "blue"], "answer": "B", "domain": "rocks"},
    {"question": "Wieviel wiegt Jade?", "options": [], "answer": "42", "domain": ""},
]


def write(folder: Path, name: str, content: bytes | str) -> RawPoolConfig:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return RawPoolConfig(path=str(path))


def read(config: RawPoolConfig) -> list[SourceRow]:
    return list(read_rows(find_sources(config), config))


def rows_of(folder: Path, name: str, content: bytes | str, **settings) -> list[SourceRow]:
    return read(write(folder, name, content).model_copy(update=settings))


def refusals(rows: list[SourceRow]) -> list[tuple[str, str]]:
    return [(row.place, row.parsed.reason) for row in rows if isinstance(row.parsed, Problem)]


def csv_text(rows: list[dict]) -> str:
    def cell(value: object) -> str:
        text = value if isinstance(value, str) else json.dumps(value)
        return '"' + text.replace('"', '""') + '"'

    return "\r\n".join([",".join(rows[0]), *(",".join(map(cell, row.values())) for row in rows)]) + "\r\n"


def test_all_formats_give_the_same_rows(tmp_path: Path) -> None:
    jsonl = rows_of(tmp_path, "a.jsonl", "\n".join(json.dumps(row) for row in ROWS))
    csv = rows_of(tmp_path, "a.csv", csv_text(ROWS))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    parquet = read(RawPoolConfig(path=str(tmp_path / "a.parquet")))
    for rows in (jsonl, csv, parquet):
        assert [row.values for row in rows] == ROWS
    assert [row.place for row in jsonl] == ["a.jsonl:1", "a.jsonl:2"]
    assert [row.place for row in csv] == ["a.csv:2", "a.csv:4"]
    assert [row.place for row in parquet] == ["a.parquet:1", "a.parquet:2"]


def test_jsonl_takes_bom_crlf_and_blank_lines(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "a.jsonl", b'\xef\xbb\xbf{"question": "a"}\r\n\r\n  \n{"question": "b"}')
    assert [(row.place, row.raw) for row in rows] == [
        ("a.jsonl:1", '{"question": "a"}'),
        ("a.jsonl:4", '{"question": "b"}'),
    ]


def test_jsonl_names_what_is_wrong_with_a_line(tmp_path: Path) -> None:
    bad = [b'{"question": "a"', b"[1]", b'{"question": \xff}', b"[" * 100_000, b'{"question": ' + b"1" * 5_000 + b"}"]
    rows = rows_of(tmp_path, "a.jsonl", b"\n".join([b'{"question": "good"}', *bad]))
    assert refusals(rows) == [
        ("a.jsonl:2", "malformed_json"),
        ("a.jsonl:3", "not_an_object"),
        ("a.jsonl:4", "invalid_utf8"),
        ("a.jsonl:5", "malformed_json"),
        ("a.jsonl:6", "malformed_json"),
    ]
    assert rows[3].raw == '{"question": \\xff}'


@pytest.mark.parametrize("excess", [-1, 0, 1, 2, 100, 101])
def test_overlong_line_is_refused_and_the_next_one_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, excess: int
) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 100)
    monkeypatch.setattr(lines, "PREFIX_BYTES", 10)
    line = b'{"question": "' + b"x" * (100 + excess - 16) + b'"}'
    assert len(line) == 100 + excess
    for end in (b"\n", b""):
        rows = rows_of(tmp_path, "a.jsonl", line + end + (b'{"question": "next"}' if end else b""))
        assert refusals(rows) == ([("a.jsonl:1", "line_too_long")] if excess > 0 else [])
        assert len(rows[0].raw) == (10 if excess > 0 else len(line))
        assert not end or rows[1].values == {"question": "next"}


def test_overlong_line_is_refused_though_its_beginning_parses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 40)
    monkeypatch.setattr(lines, "PREFIX_BYTES", 17)
    for name, content in (("a.jsonl", '{"question": "a"}' + " " * 40), ("a.csv", "question\n" + "x" * 50 + "\nnext")):
        assert refusals(rows_of(tmp_path, name, content))[0][1] == "line_too_long"


def test_csv_refuses_records_one_by_one(tmp_path: Path) -> None:
    text = b'question,answer\n"two\nlines",A\nshort\na,b,c\n\xff\n\ngood,B\n'
    rows = rows_of(tmp_path, "a.csv", text)
    assert refusals(rows) == [
        ("a.csv:4", "wrong_field_count"),
        ("a.csv:5", "wrong_field_count"),
        ("a.csv:6", "invalid_utf8"),
    ]
    assert [row.values for row in rows if row.values] == [
        {"question": "two\nlines", "answer": "A"},
        {"question": "good", "answer": "B"},
    ]
    assert rows[3].raw == "\\xff"


def test_csv_stray_quote_costs_one_line(tmp_path: Path) -> None:
    good = [f"question {i},A" for i in range(5)]
    rows = rows_of(tmp_path, "a.csv", "\n".join(["question,answer", '"open,A', *good, '"again,B', *good]))
    assert refusals(rows) == [("a.csv:2", "malformed_csv"), ("a.csv:8", "malformed_csv")]
    assert [row.place for row in rows if row.values] == [f"a.csv:{n}" for n in (3, 4, 5, 6, 7, 9, 10, 11, 12, 13)]


def test_csv_cell_limit_refuses_the_row_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "MAX_CELL_CHARS", 50)
    rows = rows_of(tmp_path, "a.csv", "question,answer\n" + "x" * 60 + ",A\ngood,B")
    assert refusals(rows) == [("a.csv:2", "malformed_csv")]
    assert rows[1].values == {"question": "good", "answer": "B"}


def test_sciknoweval_layout_goes_by_type_not_answer(tmp_path: Path) -> None:
    empty = {"text": [], "label": []}
    choices = {"text": ["a", "b"], "label": ["A", "B"]}
    published = [
        {"question": "q", "choices": choices, "answerKey": "B", "type": "mcq-2-choices", "domain": "Biology"},
        {"question": "t", "choices": empty, "answerKey": "", "answer": "No", "type": "true_or_false"},
        {"question": "t", "choices": empty, "answerKey": "", "type": "true_or_false"},
        {"question": "f", "choices": empty, "answerKey": "", "answer": "Au", "type": "filling"},
        {"question": "q", "choices": empty, "answerKey": "A", "type": "mcq-4-choices"},
    ]
    untyped = [{"question": "q", "options": ["a", "b"], "answer": "B"}, {"question": "q", "type": "essay"}]
    published += [row | {"answerKey": key} for row in untyped for key in ("", "B")]
    rows = rows_of(tmp_path, "s.jsonl", "\n".join(map(json.dumps, published)), format="sciknoweval")
    assert [row.values and (row.values["options"], row.values["answer"], row.values["domain"]) for row in rows] == [
        (["a", "b"], 1, "Biology"),
        (["Yes", "No"], "No", None),
        (["Yes", "No"], None, None),
        ([], "Au", None),
        *[None] * 5,
    ]
    refused = [("s.jsonl:5", "bad_options"), *((f"s.jsonl:{n}", "unknown_type") for n in (6, 7, 8, 9))]
    assert refusals(rows) == refused
    assert "no 'type'" in rows[5].parsed.detail
    assert "'essay'" in rows[7].parsed.detail


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "jsonl.gz"])
def test_empty_file_and_missing_file_are_named(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(SourceError, match=rf"none.{suffix} is not an existing file"):
        read(RawPoolConfig(path=str(tmp_path / f"none.{suffix}")))
    with pytest.raises(SourceError, match=rf"a.{suffix} holds no rows"):
        rows_of(tmp_path, f"a.{suffix}", b"")


@pytest.mark.parametrize(("name", "content"), [("a.jsonl", "\n \n"), ("a.csv", "question,answer\n")])
def test_source_without_rows(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(SourceError, match="holds no rows"):
        rows_of(tmp_path, name, content)


def test_unknown_ending(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"ending '.txt'.*jsonl.*set raw_pool.format"):
        rows_of(tmp_path, "a.txt", '{"question": "a"}')
    assert rows_of(tmp_path, "a.txt", '{"question": "a"}', format="jsonl")[0].values == {"question": "a"}


@pytest.mark.parametrize(
    "damage", [lambda b: b"", lambda b: b"PAR1 no", lambda b: b[:-20], lambda b: b[:4] + b"\0" * 40 + b[44:]]
)
def test_damaged_parquet_is_one_row(tmp_path: Path, damage) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS * 100), tmp_path / "good.parquet")
    rows = rows_of(tmp_path, "a.parquet", damage((tmp_path / "good.parquet").read_bytes()))
    assert refusals(rows) == [("a.parquet:1", "damaged_file")]
    assert "cannot be read as Parquet" in rows[0].parsed.detail
    assert "\n" not in rows[0].parsed.detail


@pytest.mark.parametrize("format_", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("field", ["question_column", "options_column", "answer_column", "domain_column"])
@pytest.mark.parametrize("limit", [None, 1])
def test_unknown_column_is_named_with_the_nearest(tmp_path: Path, format_: str, field: str, limit: int | None) -> None:
    path = tmp_path / f"a.{format_}"
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text(csv_text(ROWS))
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    column = field.removesuffix("_column")
    config = RawPoolConfig.model_validate({"path": str(path), field: f"my_{column}", "limit": limit})
    with pytest.raises(SourceError) as caught:
        read(config)
    message = str(caught.value)
    assert f"'my_{column}', did you mean '{column}'" in message
    assert f"raw_pool.{field}" in message
    assert all(repr(name) in message for name in ROWS[0])


def test_default_columns_may_be_absent_but_not_choices_overlooked(tmp_path: Path) -> None:
    assert len(rows_of(tmp_path, "a.csv", "question\nWhy?\n")) == 1
    for name, content in (("a.csv", 'question,choices\nWhy?,"[1, 2]"\n'), ("a.jsonl", '{"question":"a","choices":[]}')):
        with pytest.raises(SourceError, match=r"raw_pool\.options_column=choices"):
            rows_of(tmp_path, name, content)
        assert len(rows_of(tmp_path, name, content, options_column=None)) == 1


def test_columns_are_checked_in_each_source(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", '{"question": "a", "options": ["x", "y"]}')
    write(tmp_path, "b.jsonl", '{"question": "b", "choices": ["x", "y"]}')
    with pytest.raises(SourceError, match=r"b\.jsonl has a column 'choices' but no 'options'"):
        read(RawPoolConfig(path=str(tmp_path)))
    assert len(read(RawPoolConfig(path=str(tmp_path), limit=1))) == 1


def test_column_present_in_later_rows_only_is_known(tmp_path: Path) -> None:
    text = '{"question": "a"}\n{"question": "b", "subject": "c"}'
    assert len(rows_of(tmp_path, "a.jsonl", text, domain_column="subject")) == 2


@pytest.mark.parametrize(("name", "head"), [("a.jsonl", ""), ("a.csv", "question,answer\n")])
def test_files_of_carriage_returns_are_explained(tmp_path: Path, name: str, head: str) -> None:
    (row,) = rows_of(tmp_path, name, head + '{"question": "a"}\r{"question": "b"}\r')
    assert row.parsed.detail == lines.CARRIAGE_RETURN
    with pytest.raises(SourceError, match=r"no readable CSV header .a carriage return within a line"):
        rows_of(tmp_path, "b.csv", "question,answer\ra,b\r")


def test_csv_header_problems(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="names a column twice"):
        rows_of(tmp_path, "a.csv", "question,question\na,b\n")
    with pytest.raises(SourceError, match="no readable CSV header"):
        rows_of(tmp_path, "a.csv", '"question\na,b\n')
