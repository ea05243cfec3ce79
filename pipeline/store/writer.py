"""Writing one artifact: its tables and files, before they are committed as a whole.

A table is one file, or a folder of shards where a stage is too long to be lost: a shard is whole or not there, and a
later run of the same fingerprint keeps those that it finds.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.store.artifact import Tables
from pipeline.table import ENCODINGS, SCHEMA_VERSION, conform


class ArtifactWriter:
    """Collects the tables and files of one artifact."""

    def __init__(self, name: str, folder: Path, tables: Tables) -> None:
        """Write into ``folder``, where an earlier attempt may have left shards."""
        self.name = name
        self.folder = folder
        self.tables = tables
        self.recipes: dict[str, str] = {}
        """See ``Manifest.recipes``."""
        self.discarded = False
        """Set to leave nothing behind when the writing ends without error."""
        self.notes: dict[str, Any] = {}
        """Figures for people."""
        self.footer: dict[str, str] = {}
        """Metadata of the Parquet footers, besides artifact, schema version and, in shards, their number.

        The artifact's fingerprint is not in it: made again with the same rows, tables are no news to later stages.
        """
        self._writers: dict[str, pq.ParquetWriter] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._close()

    def append(self, table: str, rows: pl.DataFrame) -> None:
        """Append rows to a table as one row group; raises ArtifactError when they do not fit its schema."""
        if rows.is_empty() and table in self._writers:
            return
        checked = self._conform(table, rows)
        if table not in self._writers:
            path = self.folder / f"{table}.parquet"
            self._writers[table] = pq.ParquetWriter(path, checked.schema, **_storage(checked.schema))
        self._writers[table].write_table(checked)

    def write_shard(self, number: int, tables: Mapping[str, pl.DataFrame], **footer: str) -> None:
        """Store one shard of the given tables; raises ArtifactError when rows do not fit a schema.

        ``footer`` is metadata of this shard's own.
        """
        for table, rows in tables.items():
            path = self._shard(table, number)
            path.parent.mkdir(exist_ok=True)
            checked = self._conform(table, rows, shard=str(number), **footer)
            unfinished = path.with_suffix(".part")
            with unfinished.open("wb") as file:
                pq.write_table(checked, file, **_storage(checked.schema))
                file.flush()
                os.fsync(file.fileno())  # a name must not survive a power cut that its content does not
            os.replace(unfinished, path)

    def has_shard(self, number: int, tables: tuple[str, ...], **footer: str) -> bool:
        """Return whether a run that was cut off has left this shard of all these tables, intact and so described."""
        wanted = {"artifact": self.name, "shard": str(number), **self.footer, **footer}
        return all(_is_described(self._shard(table, number), wanted) for table in tables)

    def shards(self, table: str) -> list[Path]:
        """Return the stored shards of a table, in order."""
        return sorted((self.folder / f"{table}.parquet").glob("*.parquet"))

    def rows(self) -> dict[str, int]:
        """Return the rows of each finished table."""
        files = {table: self.shards(table) or [self.folder / f"{table}.parquet"] for table in self.tables}
        return {table: sum(pq.read_metadata(path).num_rows for path in paths) for table, paths in files.items()}

    def finish(self) -> None:
        """Complete all files; tables that got no rows are written empty."""
        for table, schema in self.tables.items():
            if table not in self._writers and not self.shards(table):
                self.append(table, pl.DataFrame(schema.empty_table()))
        self._close()

    def _close(self) -> None:
        for writer in self._writers.values():
            writer.close()

    def _conform(self, table: str, rows: pl.DataFrame, **described: str) -> pa.Table:
        checked = conform(rows, self.tables[table], where=f"{self.name}/{table}")
        described |= {"artifact": self.name, "schema_version": str(SCHEMA_VERSION), **self.footer}
        return checked.replace_schema_metadata(described)

    def _shard(self, table: str, number: int) -> Path:
        return self.folder / f"{table}.parquet" / f"shard-{number:05}.parquet"


def _is_described(path: Path, wanted: Mapping[str, str]) -> bool:
    try:
        found = pq.read_metadata(path).metadata or {}
    except (OSError, pa.ArrowException):
        return False
    return all(found.get(key.encode()) == value.encode() for key, value in wanted.items())


def _storage(schema: pa.Schema) -> dict[str, Any]:
    """Return how columns are stored."""
    leaves = {field.name: f"{field.name}.list.element" if _is_list(field) else field.name for field in schema}
    encoded = {leaves[name]: how for name, how in ENCODINGS.items() if name in leaves and _is_list(schema.field(name))}
    return {
        "compression": "zstd",
        "use_dictionary": [leaf for leaf in leaves.values() if leaf not in encoded],
        "column_encoding": encoded or None,
    }


def _is_list(field: pa.Field) -> bool:
    return bool(pa.types.is_large_list(field.type))
