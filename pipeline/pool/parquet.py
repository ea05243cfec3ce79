"""Parquet, read in batches of rows and only in the configured columns."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import RawPoolConfig
from pipeline.errors import SourceError
from pipeline.pool.source import SourceRow, check_columns, configured_columns, place

BATCH_ROWS = 1_000


def read_parquet(path: Path, config: RawPoolConfig) -> Iterator[SourceRow]:
    """Yield the rows of a Parquet file; raises SourceError when the file is damaged or something else."""
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            check_columns(names, config, path)
            wanted = configured_columns(config)
            columns = [name for name in names if name in wanted]
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
                for row in _rows(batch):
                    number += 1
                    raw = json.dumps(row, ensure_ascii=False, default=str)
                    shown = raw.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
                    yield SourceRow.of(place(path, number), shown, row)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise SourceError(f"{path} cannot be read as Parquet ({reason}): mend it or set raw_pool.format") from error


def _rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
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
