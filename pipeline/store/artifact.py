"""A finished artifact: a folder of Parquet tables and files, and the manifest that was written last."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from pipeline.digests import digest_file, digest_json
from pipeline.errors import ArtifactError

MANIFEST: Final = "manifest.json"

Tables = Mapping[str, pa.Schema]
"""Declared schema of each table of an artifact; the first one is what other stages mostly read."""


class Manifest(BaseModel):
    """What an artifact is and what it was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """Artifact."""
    fingerprint: str
    """Digest of everything that determined the content."""
    recipes: dict[str, str] = {}
    """Digest of what determines each row besides its own question, for artifacts whose rows can be taken over."""
    settings: dict[str, Any]
    """All settings of the stage, those that only bound memory included."""
    provenance: dict[str, Any]
    """What the fingerprint was taken over."""
    rows: dict[str, int]
    """Rows per table."""
    digests: dict[str, str]
    """SHA-256 per file."""
    sizes: dict[str, int]
    """Bytes per file."""
    notes: dict[str, Any] = {}
    """Figures of the stage for people."""

    @property
    def digest(self) -> str:
        """Digest of the whole content."""
        return digest_json(self.digests)


class Artifact:
    """Reads one artifact; ``tables`` are the schemas that its files must have."""

    def __init__(self, folder: Path, tables: Tables) -> None:
        """Open a folder; raises ArtifactError when it holds no readable manifest."""
        self.folder = folder
        self.tables = tables
        self.manifest = _read_manifest(folder)

    @property
    def name(self) -> str:
        """Artifact."""
        return self.manifest.name

    def path(self, table: str | None = None) -> Path:
        """Return the Parquet file of a table, or the folder of its shards; by default the artifact's first table."""
        return self.folder / f"{table or next(iter(self.tables))}.parquet"

    def files(self, table: str | None = None) -> list[Path]:
        """Return the Parquet files of a table, in order; what else lies beside them is ignored."""
        path = self.path(table)
        shards = [name for name in self.manifest.digests if name.startswith(f"{path.name}/")]
        return [self.folder / name for name in sorted(shards)] or [path]

    def scan(self, table: str | None = None) -> pl.LazyFrame:
        """Return a lazy frame of a table; raises ArtifactError when a file is missing or has another schema."""
        return scan_files(self.files(table), self.tables[self.path(table).stem], self._remedy)

    def scan_shards(self, table: str | None = None) -> list[pl.LazyFrame]:
        """Return a lazy frame per file of a table, in order; checks as ``scan`` does."""
        self.scan(table)
        return [pl.scan_parquet(path) for path in self.files(table)]

    def read(self, table: str | None = None) -> pl.DataFrame:
        """Return a whole table; raises ArtifactError when it is missing, damaged or has another schema."""
        try:
            return self.scan(table).collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise ArtifactError(f"{self.path(table)} cannot be read: {self._remedy}") from error

    @property
    def written(self) -> int:
        """When it was finished, in nanoseconds."""
        return (self.folder / MANIFEST).stat().st_mtime_ns

    def is_intact(self, thorough: bool = False) -> bool:
        """Return whether the files are those of the manifest.

        Sizes tell, and modification times: the manifest was written last, so a file that is younger is read in full.
        With ``thorough`` every file is.
        """
        try:
            found = list_files(self.folder)
            return found.keys() == self.manifest.digests.keys() and all(
                self._is_same(name, path, thorough) for name, path in found.items()
            )
        except FileNotFoundError:  # removed meanwhile
            return False

    def _is_same(self, name: str, path: Path, thorough: bool) -> bool:
        status = path.stat()
        if status.st_size != self.manifest.sizes.get(name):
            return False
        unread = status.st_mtime_ns <= self.written and not thorough
        return unread or digest_file(path) == self.manifest.digests[name]

    @property
    def _remedy(self) -> str:
        return f"materialize '{self.name}' again"


def scan_files(files: Sequence[Path], schema: pa.Schema, remedy: str) -> pl.LazyFrame:
    """Return a lazy frame of Parquet files; raises ArtifactError when one is missing or of another schema."""
    for path in files:
        try:
            stored = pq.read_schema(path)
        except (OSError, pa.ArrowException) as error:
            raise ArtifactError(f"{path} is missing or not Parquet: {remedy}") from error
        if not stored.equals(schema):
            raise ArtifactError(f"{path} does not have the declared schema: {remedy}")
    return pl.scan_parquet(list(files))


def find_intact(folder: Path, tables: Tables, recipe: str | None = None, thorough: bool = False) -> Artifact | None:
    """Return the artifact in a folder, or none where it is unfinished, not intact, or not of the recipe asked for."""
    try:
        artifact = Artifact(folder, tables)
    except ArtifactError:
        return None
    wanted = recipe is None or recipe in artifact.manifest.recipes.values()
    return artifact if wanted and artifact.is_intact(thorough) else None


def list_files(folder: Path) -> dict[str, Path]:
    """Return the files of an artifact by their names within it, the manifest left out."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    files.pop(MANIFEST, None)
    return files


def _read_manifest(folder: Path) -> Manifest:
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder} holds no finished artifact: materialize it again") from error
