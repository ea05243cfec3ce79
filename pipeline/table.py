"""Schemas: the contract between stages, checked on write and on read.

Column notes travel in the Parquet files.
"""

from collections.abc import Mapping
from typing import Final

import polars as pl
import pyarrow as pa

from pipeline.errors import ArtifactError

SCHEMA_VERSION: Final = 4
"""Stands in every file; raised when a column changes its meaning."""

ENCODINGS: Final[Mapping[str, str]] = {
    "neurons": "DELTA_BINARY_PACKED",
    "scores": "BYTE_STREAM_SPLIT",
    "state": "BYTE_STREAM_SPLIT",
}
"""Parquet encodings of list columns that are stored smaller than with a dictionary: ascending ids, and floats."""


def table(**columns: tuple[pa.DataType, bool, str]) -> pa.Schema:
    """Build a schema from ``name=(type, nullable, note)``."""
    return pa.schema(
        [pa.field(name, kind, nullable, metadata={"note": note}) for name, (kind, nullable, note) in columns.items()]
    )


TEXT = pa.large_string()
ID = (TEXT, False, "content hash of question and options")
SAMPLE = (pa.int32(), False, "number of the rollout within its question, from 0")
TOKENS = pa.large_list(pa.int32())
FLOATS = pa.large_list(pa.float32())


def conform(rows: pl.DataFrame, schema: pa.Schema, where: str) -> pa.Table:
    """Return ``rows`` as an Arrow table of exactly ``schema``; raises ArtifactError on any difference."""
    if rows.columns != schema.names:
        raise ArtifactError(f"{where}: columns {rows.columns} are not the declared {schema.names}")
    for field in schema:
        if not field.nullable and rows[field.name].null_count():
            raise ArtifactError(f"{where}: column '{field.name}' holds nulls but must not")
    try:
        return rows.to_arrow().cast(schema)
    except (pa.ArrowException, ValueError) as error:
        raise ArtifactError(f"{where}: {error}") from error
