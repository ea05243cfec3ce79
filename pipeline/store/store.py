"""Artifacts by content: ``store/<artifact>/<fingerprint>/``, and the runs that show them: ``runs/<run>/<artifact>``.

What has the same fingerprint is the same artifact, whatever run asked for it first; a run is a folder of links. An
artifact is written into a hidden folder beside the final one and renamed when its manifest stands in it, so a reader
never sees half of one. Whoever writes an artifact that another process is writing too works in a folder of its own, and
the first to finish wins: nobody waits.
"""

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pipeline.digests import digest_file
from pipeline.errors import ArtifactError, ConfigError
from pipeline.store.artifact import MANIFEST, Artifact, Manifest, Tables, find_intact, list_files
from pipeline.store.part import clear_scratch, part_of, put
from pipeline.store.writer import ArtifactWriter

_RUN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DISK_IS_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


class Store:
    """All artifacts and runs under one folder."""

    def __init__(self, root: Path, catalogue: Mapping[str, Tables]) -> None:
        """Open a store whose artifacts have the tables of ``catalogue``."""
        self.root = root
        self.catalogue = catalogue
        self.artifacts = root / "store"
        self.runs = root / "runs"
        self.ledger = root / "ledger"

    def folder(self, name: str, fingerprint: str) -> Path:
        """Return where an artifact stands, or would."""
        return self.artifacts / name / fingerprint

    def find(self, name: str, fingerprint: str) -> Artifact | None:
        """Return the finished artifact of a fingerprint; one whose files were changed or lost counts as none."""
        return find_intact(self.folder(name, fingerprint), self.catalogue[name])

    def of_recipe(self, name: str, recipe: str) -> list[Artifact]:
        """Return the finished artifacts whose rows were made by a recipe, the youngest first."""
        folders = (self.artifacts / name).glob("[!.]*")
        found = [artifact for folder in folders if (artifact := find_intact(folder, self.catalogue[name], recipe))]
        return sorted(found, key=lambda artifact: artifact.written, reverse=True)

    def run(self, name: str) -> "Run":
        """Return a run, which need not have any artifact yet; raises ConfigError for a name that is no folder's."""
        if not _RUN_NAME.fullmatch(name):
            raise ConfigError(f"run '{name}' is not a name: use letters, digits, points, hyphens and underscores")
        return Run(self, name)

    @contextmanager
    def write(
        self, name: str, fingerprint: str, settings: Mapping[str, Any], provenance: Mapping[str, Any]
    ) -> Iterator[ArtifactWriter]:
        """Open an artifact for writing; it is there when the block ends without error.

        Shards and hidden folders that a block leaves when it is cut off are there again in the next block of the same
        fingerprint; what is hidden is not part of the artifact. Raises ArtifactError when the store cannot be written.
        """
        final, opened = self.folder(name, fingerprint), False
        try:
            with part_of(final) as part, self._told(final), ArtifactWriter(name, part, self.catalogue[name]) as writer:
                opened = True
                yield writer
                if writer.discarded:
                    shutil.rmtree(part)
                else:
                    writer.finish()
                    clear_scratch(part)
                    _write_manifest(writer, fingerprint, settings, provenance)
                    put(part, final, writer.tables)
        except OSError as error:
            if opened and error.errno not in _DISK_IS_FULL:
                raise
            raise self.unwritable(error) from error

    @contextmanager
    def _told(self, final: Path) -> Iterator[None]:
        """Tell of a full disk before what was written is removed: the file, and what is free."""
        try:
            yield
        except OSError as error:
            if error.errno not in _DISK_IS_FULL:
                raise
            # Of all artifacts of the stage, which have one fingerprint: this one may only be the first to be closed.
            parts = self.artifacts.glob(f"*/.{final.name}.*.part")
            written = [path for part in parts for path in part.rglob("*") if path.is_file()]
            error.filename = error.filename or max(written, key=lambda path: path.stat().st_mtime_ns, default=final)
            raise self.unwritable(error) from error

    def unwritable(self, error: OSError) -> ArtifactError:
        """Return the error for a store in which nothing, or the file that ``error`` names, can be written."""
        reason = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in _DISK_IS_FULL and self.root.exists():
            reason += f", {shutil.disk_usage(self.root).free / 1e6:,.3f} MB are free"
        where = error.filename or self.root
        return ArtifactError(f"{where} cannot be written ({reason}): make room, or name another folder by --store")


class Run:
    """A folder of links: which artifacts a run consists of."""

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name
        self.folder = store.runs / name

    def find(self, name: str) -> Artifact | None:
        """Return the run's artifact of a name, or none."""
        try:
            return Artifact((self.folder / name).resolve(), self.store.catalogue[name])
        except ArtifactError:
            return None

    def require(self, name: str) -> Artifact:
        """Return the run's artifact of a name; raises ArtifactError naming what to materialize when there is none."""
        artifact = self.find(name)
        if artifact is None:
            raise ArtifactError(f"{self.folder / name} has no finished artifact: materialize '{name}' first")
        return artifact

    def show(self, name: str, fingerprint: str) -> Artifact:
        """Make the artifact of a fingerprint the run's; raises ArtifactError where a link to it cannot be made."""
        self.check_link(name)
        link, target = self.folder / name, self.store.folder(name, fingerprint)
        unfinished = link.with_name(f".{name}.{secrets.token_hex(4)}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            unfinished.symlink_to(os.path.relpath(target.resolve(), self.folder.resolve()))
            os.replace(unfinished, link)
        except OSError as error:
            raise self.store.unwritable(error) from error
        return self.require(name)

    def check_link(self, name: str) -> None:
        """Raise ArtifactError where something else stands in the place of a link."""
        link = self.folder / name
        if link.exists() and not link.is_symlink():
            raise ArtifactError(f"{link} is no link to an artifact: remove it, or name another run with --run")

    def hide(self, name: str) -> None:
        """Leave an artifact out of the run, if it was in it."""
        (self.folder / name).unlink(missing_ok=True)


def _write_manifest(
    writer: ArtifactWriter, fingerprint: str, settings: Mapping[str, Any], provenance: Mapping[str, Any]
) -> None:
    files = list_files(writer.folder)
    manifest = Manifest(
        name=writer.name,
        fingerprint=fingerprint,
        recipes=writer.recipes,
        settings=dict(settings),
        provenance=dict(provenance),
        rows=writer.rows(),
        digests={name: digest_file(path) for name, path in files.items()},
        sizes={name: path.stat().st_size for name, path in files.items()},
        notes=writer.notes,
    )
    (writer.folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
