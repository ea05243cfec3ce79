"""Parquet, read in batches of rows and only in the configured columns."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import SourceError
from pipeline.pool.config import RawPoolConfig
from pipeline.pool.source import Source, SourceRow, damaged, find_columns

BATCH_ROWS = 1_000
_READ_BYTES = 2**20  # of a column at once, so that a file of one huge row group is streamed too


def read_parquet(source: Source, config: RawPoolConfig) -> Iterator[SourceRow]:
    """Yield the rows of a Parquet file."""
    number = 0
    try:
        with source.open() as stored, pq.ParquetFile(stored, buffer_size=_READ_BYTES, pre_buffer=False) as file:
            columns = find_columns(file.schema_arrow.names, config, source.path)
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
                yield from batch_rows(batch, source, number)
                number += batch.num_rows
    except SourceError:
        raise
    except Exception as error:  # noqa: BLE001  # each file system has errors of its own
        yield damaged(source, number + 1, f"cannot be read as Parquet: {error}")


def batch_rows(batch: pa.RecordBatch | pa.Table, source: Source, n_before: int) -> Iterator[SourceRow]:
    """Yield the rows of an Arrow batch that ``n_before`` rows of the source come before."""
    for number, row in enumerate(_to_rows(batch), start=n_before + 1):
        yield SourceRow(source.name, number, row, partial(_show, row))


def _show(row: dict[str, Any]) -> str:
    text = json.dumps(row, ensure_ascii=False, default=str)
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _to_rows(batch: pa.RecordBatch | pa.Table) -> list[dict[str, Any]]:
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:  # Arrow does not check the text in a file
        cells = [[_cell(value) for value in column] for column in batch.columns]
        return [dict(zip(batch.schema.names, row, strict=True)) for row in zip(*cells, strict=True)]


def _cell(value: pa.Scalar) -> object:
    try:
        return value.as_py()
    except UnicodeDecodeError as error:
        return error.object.decode("utf-8", "surrogateescape")
