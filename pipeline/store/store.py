"""Artifacts by content: ``store/<artifact>/<fingerprint>/``, and the runs that show them: ``runs/<run>/<artifact>``.

What has the same fingerprint is the same artifact, whatever run asked for it first; a run is a folder of links. An
artifact is written into a hidden folder beside the final one and renamed when its manifest stands in it, so a reader
never sees half of one. Whoever writes an artifact that another process is writing too works in a folder of its own, and
the first to finish wins: nobody waits.
"""

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from pipeline.digests import digest_file
from pipeline.errors import ArtifactError, ConfigError
from pipeline.store.artifact import MANIFEST, Artifact, Manifest, Tables
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

    def folder(self, name: str, fingerprint: str) -> Path:
        """Return where an artifact stands, or would."""
        return self.artifacts / name / fingerprint

    def find(self, name: str, fingerprint: str) -> Artifact | None:
        """Return the finished artifact of a fingerprint; one whose files were changed or lost counts as none."""
        folder, tables = self.folder(name, fingerprint), self.catalogue[name]
        return Artifact(folder, tables) if _is_intact(folder, tables) else None

    def of_recipe(self, name: str, recipe: str) -> list[Artifact]:
        """Return the finished artifacts whose rows were made by a recipe, the youngest first."""
        found = []
        for folder in (self.artifacts / name).glob("[!.]*"):
            try:
                artifact = Artifact(folder, self.catalogue[name])
            except ArtifactError:
                continue
            if artifact.manifest.recipe == recipe and artifact.is_intact():
                found.append(((folder / MANIFEST).stat().st_mtime_ns, artifact))
        return [artifact for _, artifact in sorted(found, key=lambda pair: -pair[0])]

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
        fingerprint; hidden folders are not part of the artifact. Raises ArtifactError when the store cannot be written.
        """
        final = self.folder(name, fingerprint)
        try:
            with self._part(final) as part:
                writer = ArtifactWriter(name, part, self.catalogue[name], fingerprint)
                try:
                    yield writer
                    if writer.discarded:
                        shutil.rmtree(part)
                    else:
                        writer.finish()
                        _commit(writer, final, settings, provenance)
                finally:
                    writer.close()
        except OSError as error:
            if error.errno not in _DISK_IS_FULL:
                raise
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> ArtifactError:
        return ArtifactError(
            f"{self.root} cannot be written ({error.strerror}): make room, or choose another folder with --store"
        )

    @contextmanager
    def _part(self, final: Path) -> Iterator[Path]:
        """Yield a folder to write in: what a dead process left of the same artifact, or one of this process alone."""
        shared = final.with_name(f".{final.name}.part")
        try:
            shared.mkdir(parents=True, exist_ok=True)
            lock = final.with_name(f".{final.name}.lock").open("w")
        except OSError as error:
            raise self._unwritable(error) from error
        with lock:
            if _is_free(lock):
                shared.mkdir(exist_ok=True)
                _tidy(shared)
                yield shared
                return
        private = final.with_name(f".{final.name}.{os.getpid()}.part")
        private.mkdir(exist_ok=True)
        try:
            yield private
        finally:
            shutil.rmtree(private, ignore_errors=True)


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
        """Make the artifact of a fingerprint the run's."""
        link, target = self.folder / name, self.store.folder(name, fingerprint)
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = link.with_name(f".{name}.{os.getpid()}")
        unfinished.unlink(missing_ok=True)
        unfinished.symlink_to(os.path.relpath(target, self.folder.resolve()))
        try:
            os.replace(unfinished, link)
        except OSError as error:
            unfinished.unlink()
            raise ArtifactError(
                f"{link} is no link to an artifact: remove it, or name another run with --run"
            ) from error
        return self.require(name)

    def hide(self, name: str) -> None:
        """Leave an artifact out of the run, if it was in it."""
        (self.folder / name).unlink(missing_ok=True)


def _is_intact(folder: Path, tables: Tables) -> bool:
    try:
        return Artifact(folder, tables).is_intact()
    except (ArtifactError, FileNotFoundError):
        return False


def _is_free(lock: IO[str]) -> bool:
    """Take a lock unless another process holds it; that of a process that dies is free."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _tidy(part: Path) -> None:
    """Remove what an attempt that was cut off has left, but for its shards and hidden folders."""
    for path in part.iterdir():
        if path.is_file():
            path.unlink()
        elif not (path.suffix == ".parquet" or path.name.startswith(".")):
            shutil.rmtree(path)


def _commit(writer: ArtifactWriter, final: Path, settings: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
    for scratch in writer.folder.glob(".*"):
        shutil.rmtree(scratch)
    files = sorted(path for path in writer.folder.rglob("*") if path.is_file())
    names = {path.relative_to(writer.folder).as_posix(): path for path in files if path.name != MANIFEST}
    manifest = Manifest(
        name=writer.name,
        fingerprint=final.name,
        recipe=writer.recipe,
        settings=dict(settings),
        provenance=dict(provenance),
        rows=writer.rows(),
        digests={name: digest_file(path) for name, path in names.items()},
        sizes={name: path.stat().st_size for name, path in names.items()},
        notes=writer.notes,
    )
    (writer.folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    if final.exists():
        if _is_intact(final, writer.tables):  # another process has finished the same meanwhile
            shutil.rmtree(writer.folder)
            return
        damaged = final.with_name(f".{final.name}.{os.getpid()}.old")
        os.rename(final, damaged)
        shutil.rmtree(damaged)
    os.rename(writer.folder, final)
