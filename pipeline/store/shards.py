"""Tables in shards by question, whose rows are taken over from earlier artifacts where nothing of theirs changed.

A question's shard is told by a hash of its id, so that the other questions do not move it. Each question has a key, a
digest of all that its rows are made from besides the artifact's recipe; the keys stand in the footers of the shards.
Rows of the same recipe and key are equal up to the rounding of another batch, so they are copied instead of computed. A
run that was cut off goes on at its first shard that is not there, with the same bytes.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log2
from typing import Final

import polars as pl
import pyarrow.parquet as pq
from tqdm import tqdm

from pipeline.digests import digest_json
from pipeline.execution import Executor, InProcess
from pipeline.store.artifact import Artifact
from pipeline.store.writer import ArtifactWriter

QUESTIONS_PER_SHARD: Final = 256
"""At most, about: bounds memory, and what a killed run has to compute again."""
KEYS: Final = b"keys"
"""Footer entry of the first table's shards: the key of each of their questions, as JSON."""

Rows = Mapping[str, pl.DataFrame]
"""Rows of each sharded table."""


@dataclass(frozen=True)
class _Piece:
    """Shards that are made together: rows that must be computed are enough for one."""

    shards: Mapping[int, Mapping[str, str]]
    """Questions of each, with their keys."""
    missing: Sequence[str]
    """Those whose rows must be computed."""


class ShardedTables:
    """Makes some tables of an artifact, shard by shard."""

    def __init__(
        self,
        writer: ArtifactWriter,
        tables: Sequence[str],
        earlier: Callable[[str], Sequence[Artifact]],
        executor: Executor | None = None,
    ) -> None:
        """Write ``tables`` with ``writer``, the first of which has a row of every question.

        ``earlier`` returns the finished artifacts of a recipe, from which rows may be taken.
        """
        self.writer = writer
        self.tables = tuple(tables)
        self.earlier = earlier
        self.executor = executor or InProcess()
        self._recipe = ""

    def make(
        self,
        keys: Mapping[str, str],
        recipe: Mapping[str, object],
        compute: Callable[[Sequence[str], Callable[[float], object]], Rows],
    ) -> None:
        """Store the rows of all questions.

        Args:
            keys: Key of each question.
            recipe: All that determines rows besides the keys.
            compute: Returns the rows of the given questions, and tells how many questions more are done as it goes. It
                depends on nothing but them, the order included.
        """
        schemas = {table: self.writer.tables[table].to_string() for table in self.tables}
        self._recipe = digest_json({"recipe": dict(recipe), "tables": schemas})
        self.writer.recipes[self.tables[0]] = self._recipe
        known = _Known(self.earlier(self._recipe), self.tables[0], keys)
        pieces = list(_plan(keys, known))
        with tqdm(total=len(keys), desc=self.writer.name, unit="question", mininterval=1) as bar:

            def make_piece(piece: _Piece) -> None:
                absent = {number: own for number, own in piece.shards.items() if not self._is_there(number, own)}
                computed = compute(piece.missing, bar.update) if absent and piece.missing else None
                for number, own in absent.items():
                    rows = {table: self._rows(table, list(own), computed, known) for table in self.tables}
                    self._write(number, rows, own)
                n_questions = sum(map(len, piece.shards.values()))
                bar.update(n_questions - (0 if computed is None else len(piece.missing)))

            for _ in self.executor.map(make_piece, pieces):
                pass

    def _rows(self, table: str, ids: Sequence[str], computed: Rows | None, known: "_Known") -> pl.DataFrame:
        parts = [known.rows(table, ids)]
        if computed is not None:
            parts.append(computed[table].filter(pl.col("id").is_in(ids)))
        together = pl.concat([part for part in parts if part is not None], how="vertical_relaxed")
        order = [column for column in ("id", "sample") if column in together.columns]
        return together.sort(order, maintain_order=True)

    def _is_there(self, number: int, keys: Mapping[str, str]) -> bool:
        return self.writer.has_shard(number, self.tables, fingerprint=self._fingerprint(keys))

    def _write(self, number: int, rows: Rows, keys: Mapping[str, str]) -> None:
        first, described = self.tables[0], {"fingerprint": self._fingerprint(keys)}
        # The first table last: a shard counts when all are there, and its keys are read from this one.
        for table in (*self.tables[1:], first):
            footer = described | ({"keys": json.dumps(keys)} if table == first else {})
            self.writer.write_shard(number, {table: rows[table]}, **footer)

    def _fingerprint(self, keys: Mapping[str, str]) -> str:
        """Return the digest of all that determines the rows of a shard, whatever others stand beside it."""
        return digest_json([self._recipe, dict(keys)])


class _Known:
    """Rows of earlier artifacts, found by question and key."""

    def __init__(self, artifacts: Sequence[Artifact], table: str, keys: Mapping[str, str]) -> None:
        """Remember which shard of ``table`` has each question's rows, where one does."""
        self._where: dict[str, tuple[Artifact, str]] = {}
        self._n_stored: dict[tuple[Artifact, str], int] = {}
        for artifact in artifacts:
            if len(self._where) == len(keys):
                return
            for path in artifact.files(table):
                stored = json.loads((pq.read_metadata(path).metadata or {}).get(KEYS, b"{}"))
                self._n_stored[artifact, path.name] = len(stored)
                for question, key in stored.items():
                    if keys.get(question) == key and question not in self._where:
                        self._where[question] = (artifact, path.name)

    def __contains__(self, question: object) -> bool:
        return question in self._where

    def rows(self, table: str, ids: Sequence[str]) -> pl.DataFrame | None:
        """Return the rows of those of the questions that are known."""
        wanted: dict[tuple[Artifact, str], list[str]] = {}
        for question in ids:
            if question in self._where:
                wanted.setdefault(self._where[question], []).append(question)
        parts = []
        for (artifact, name), own in wanted.items():
            stored = pl.scan_parquet(artifact.path(table) / name)
            is_whole = len(own) == self._n_stored[artifact, name]
            parts.append(stored if is_whole else stored.filter(pl.col("id").is_in(own)))
        return pl.concat(parts).collect() if parts else None


def shard_number(question: str, n_shards: int) -> int:
    """Return the shard of a question among ``n_shards``, a power of 2; twice as many split each in two."""
    return int.from_bytes(hashlib.sha256(question.encode()).digest()[:8], "big") * n_shards >> 64


def _plan(keys: Mapping[str, str], known: _Known) -> Iterator[_Piece]:
    n_shards = 2 ** ceil(log2(max(1.0, len(keys) / QUESTIONS_PER_SHARD)))
    members: dict[int, dict[str, str]] = {}
    for question in sorted(keys):
        members.setdefault(shard_number(question, n_shards), {})[question] = keys[question]
    shards: dict[int, Mapping[str, str]] = {}
    missing: list[str] = []
    for number, own in sorted(members.items()):
        shards[number] = own
        missing += [question for question in own if question not in known]
        if len(missing) >= QUESTIONS_PER_SHARD // 2:
            yield _Piece(shards, missing)
            shards, missing = {}, []
    if shards:
        yield _Piece(shards, missing)
