"""Stored artifacts: a folder of Parquet tables and files, whole or not at all.

A stage writes into a hidden folder beside the final one, which is renamed when the manifest stands in it, so a reader
never sees half an artifact. The manifest says what determined the content (fingerprint, config, digests of the inputs)
and what the content is (rows and SHA-256 per file). A table is one file, or a folder of shards when a stage is too long
to be lost: shards are whole or not at all as well, and a later run of the same fingerprint keeps those that it finds.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from pipeline.digests import digest_file, digest_json
from pipeline.errors import ArtifactError
from pipeline.schemas import ARTIFACTS
from pipeline.table import ENCODINGS, SCHEMA_VERSION, conform

MANIFEST = "manifest.json"
_OWNER = "fingerprint"
"""File in an unfinished artifact that says whose it is."""


class Manifest(BaseModel):
    """What an artifact is and what it was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """Artifact, asset and folder."""
    fingerprint: str
    """Digest of everything that determined the content."""
    schema_version: int = SCHEMA_VERSION
    """Version of the table schemas."""
    provenance: dict[str, Any]
    """What the fingerprint was taken over: config section, digests of inputs, model, code version."""
    rows: dict[str, int]
    """Rows per table."""
    digests: dict[str, str]
    """SHA-256 per file."""
    notes: dict[str, Any] = {}
    """Figures of the stage for people."""

    @property
    def digest(self) -> str:
        """Digest of the whole content."""
        return digest_json(self.digests)


class ArtifactWriter:
    """Collects the tables and files of one artifact before it is committed."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.discarded = False
        """Set to leave nothing behind when the writing ends without error."""
        self.notes: dict[str, Any] = {}
        self.footer: dict[str, str] = {}
        """Metadata of the shards' Parquet footers, besides artifact and schema version."""
        self._writers: dict[str, pq.ParquetWriter] = {}

    def append(self, table: str, rows: pl.DataFrame) -> None:
        """Append rows to a table as one row group; raises ArtifactError when they do not fit its schema."""
        if rows.is_empty() and table in self._writers:
            return
        checked = self._conform(table, rows)
        if table not in self._writers:
            path = self.folder / f"{table}.parquet"
            self._writers[table] = pq.ParquetWriter(path, checked.schema, **_storage(checked.schema))
        self._writers[table].write_table(checked)

    def write_shard(self, number: int, tables: Mapping[str, pl.DataFrame]) -> None:
        """Store one shard of every table; raises ArtifactError when rows do not fit a schema."""
        for table, rows in tables.items():
            path = self._shard(table, number)
            path.parent.mkdir(exist_ok=True)
            checked, unfinished = self._conform(table, rows, shard=str(number)), path.with_suffix(".part")
            with unfinished.open("wb") as file:
                pq.write_table(checked, file, **_storage(checked.schema))
                file.flush()
                os.fsync(file.fileno())  # a name must not survive a power cut that its content does not
            os.replace(unfinished, path)

    def has_shard(self, number: int) -> bool:
        """Return whether a run that was cut off has left this shard of every table, intact."""
        return all(self._is_own(self._shard(table, number), number) for table in ARTIFACTS[self.name])

    def shards(self, table: str) -> list[Path]:
        """Return the stored shards of a table, in order."""
        return sorted((self.folder / f"{table}.parquet").glob("*.parquet"))

    def rows(self) -> dict[str, int]:
        """Return the rows of each finished table."""
        files = {table: self.shards(table) or [self.folder / f"{table}.parquet"] for table in ARTIFACTS[self.name]}
        return {table: sum(pq.read_metadata(path).num_rows for path in paths) for table, paths in files.items()}

    def finish(self) -> None:
        """Complete all files; tables that got no rows are written empty."""
        for table, schema in ARTIFACTS[self.name].items():
            if table not in self._writers and not self.shards(table):
                self.append(table, pl.DataFrame(schema.empty_table()))
        self.close()

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()

    def _conform(self, table: str, rows: pl.DataFrame, **described: str) -> pa.Table:
        checked = conform(rows, ARTIFACTS[self.name][table], where=f"{self.name}/{table}")
        described |= {"artifact": self.name, "schema_version": str(SCHEMA_VERSION), **self.footer}
        return checked.replace_schema_metadata(described)

    def _is_own(self, path: Path, number: int) -> bool:
        try:
            found = pq.read_metadata(path).metadata or {}
        except (OSError, pa.ArrowInvalid):
            return False
        wanted = {"artifact": self.name, "shard": str(number), **self.footer}
        return all(found.get(key.encode()) == value.encode() for key, value in wanted.items())

    def _shard(self, table: str, number: int) -> Path:
        return self.folder / f"{table}.parquet" / f"shard-{number:05}.parquet"


class ArtifactStore:
    """All artifacts of one run, under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def manifest(self, name: str) -> Manifest | None:
        """Return the manifest of a finished artifact, or none; a damaged manifest counts as none."""
        try:
            return Manifest.model_validate_json((self.root / name / MANIFEST).read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def current(self, name: str, fingerprint: str) -> Manifest | None:
        """Return the manifest if the artifact was made by exactly this fingerprint and its files are intact."""
        manifest = self.manifest(name)
        if manifest is None or manifest.fingerprint != fingerprint or manifest.schema_version != SCHEMA_VERSION:
            return None
        return manifest if _file_digests(self.root / name) == manifest.digests else None

    def require(self, name: str) -> Manifest:
        """Return the manifest; raises ArtifactError naming the stage to run when there is none."""
        manifest = self.manifest(name)
        if manifest is None:
            raise ArtifactError(f"{self.root / name} has no finished artifact: materialize '{name}' first")
        return manifest

    def path(self, name: str, table: str | None = None) -> Path:
        """Return the Parquet file of a table, or the folder of its shards; by default the artifact's first table."""
        return self.root / name / f"{table or next(iter(ARTIFACTS[name]))}.parquet"

    def files(self, name: str, table: str | None = None) -> list[Path]:
        """Return the Parquet files of a finished artifact's table, in order; what else lies beside them is ignored."""
        path = self.path(name, table)
        shards = [shard for shard in self.require(name).digests if shard.startswith(f"{path.name}/")]
        return [self.root / name / shard for shard in sorted(shards)] or [path]

    def scan(self, name: str, table: str | None = None) -> pl.LazyFrame:
        """Return a lazy frame of a table after checking its schema."""
        files = self.files(name, table)
        for path in files:
            try:
                stored = pq.read_schema(path)
            except (OSError, pa.ArrowInvalid) as error:
                raise ArtifactError(f"{path} is missing or not Parquet: materialize '{name}' again") from error
            if not stored.equals(ARTIFACTS[name][self.path(name, table).stem]):
                raise ArtifactError(f"{path} does not have the declared schema: materialize '{name}' again")
        return pl.scan_parquet(files)

    def read(self, name: str, table: str | None = None) -> pl.DataFrame:
        """Return a whole table after checking its schema; raises ArtifactError when its content is damaged."""
        try:
            return self.scan(name, table).collect()
        except (pl.exceptions.ComputeError, OSError) as error:
            raise ArtifactError(f"{self.path(name, table)} cannot be read: materialize '{name}' again") from error

    @contextmanager
    def write(
        self, name: str, fingerprint: str, provenance: Mapping[str, Any], resumable: bool = False
    ) -> Iterator[ArtifactWriter]:
        """Open an artifact for writing; it replaces the finished one when the block ends without error.

        What a ``resumable`` artifact's block leaves when it is cut off is there again in the next block of the same
        fingerprint.
        """
        folder = self.root / f".{name}.part"
        owner = folder / _OWNER
        with self._lock(name):
            if not (resumable and owner.is_file() and owner.read_text(encoding="utf-8") == fingerprint):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                owner.write_text(fingerprint, encoding="utf-8")
            writer = ArtifactWriter(name, folder)
            finished = False
            try:
                yield writer
                if not writer.discarded:
                    writer.finish()
                    manifest = Manifest(
                        name=name,
                        fingerprint=fingerprint,
                        provenance=dict(provenance),
                        rows=writer.rows(),
                        digests=_file_digests(folder),
                        notes=writer.notes,
                    )
                    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
                    owner.unlink()
                    _replace(folder, self.root / name)
                finished = True
            finally:
                writer.close()
                if finished or not resumable:
                    shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        """Keep other runs from writing the artifact; the lock of a process that dies is free."""
        path = self.root / f".{name}.lock"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            file = path.open("w")
        except OSError as error:
            raise ArtifactError(
                f"{self.root} cannot be written ({error.strerror}): choose another folder with --store"
            ) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ArtifactError(
                    f"another run is writing '{name}' in {self.root}: wait for it, or choose another --store"
                ) from error
            yield


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


def _file_digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in {MANIFEST, _OWNER})
    return {path.relative_to(folder).as_posix(): digest_file(path) for path in files}


def _replace(new: Path, final: Path) -> None:
    # A folder cannot be renamed over a full one; a kill between the two renames leaves no artifact, never a mixture.
    old = final.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        os.rename(final, old)
    os.rename(new, final)
    shutil.rmtree(old, ignore_errors=True)
