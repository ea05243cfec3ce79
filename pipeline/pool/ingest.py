"""The stage ``raw_pool``: streams a source into three tables (pool, gold answers, quarantine), a batch at a time.

Every row read is either kept or quarantined with a reason. Pool and quarantine reasons never depend on an answer.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import polars as pl
import pyarrow as pa

from pipeline.errors import ArtifactError, QuarantineError, SourceError
from pipeline.pool.config import RawPoolConfig
from pipeline.pool.gold import Gold, has_answer, resolve_gold
from pipeline.pool.latex import mend_latex
from pipeline.pool.question import Question, parse_question
from pipeline.pool.reader import find_sources, read_rows
from pipeline.pool.schemas import GOLD_LABELS, QUARANTINE, RAW_POOL
from pipeline.pool.source import Problem, Reason, SourceRow
from pipeline.pool.statistics import PoolStatistics, count_table

POOL_SETTING = "raw_pool.path"
"""Setting that holds the path of the pool; held-out questions are ingested from those of other settings."""
BATCH_ROWS = 2_000
MAX_RAW_CHARS = 2**15
"""What the quarantine keeps of a row: a full batch of refused rows of any length fits in memory."""


@dataclass(frozen=True)
class Batch:
    """The outcome of some consecutive rows: one frame per table, each of its declared schema."""

    raw_pool: pl.DataFrame
    """Kept questions."""
    gold_labels: pl.DataFrame
    """Gold answers of kept questions, where usable."""
    quarantine: pl.DataFrame
    """Refused rows."""

    @property
    def height(self) -> int:
        """Rows of the source that the batch accounts for."""
        return self.raw_pool.height + self.quarantine.height


@dataclass
class IngestCounts:
    """What became of the rows."""

    read: int = 0
    """Rows read, blank lines left out."""
    kept: int = 0
    """Questions in the pool."""
    quarantined: Counter[str] = field(default_factory=Counter)
    """Refused rows per reason code."""
    gold: int = 0
    """Kept questions with a gold answer."""
    unusable_gold: int = 0
    """Kept questions whose answer names no option, or could name two."""
    mended: int = 0
    """Rows in which mangled LaTeX was put back (``latex``)."""
    first_refusal: str = ""
    """Place, reason and detail of the first refused row."""

    @property
    def refused_share(self) -> float:
        """Share of the rows that are quarantined."""
        return self.quarantined.total() / max(self.read, 1)

    def rows(self) -> dict[str, Any]:
        """Return what became of the rows, for people and checks; says nothing of answers."""
        refused = self.quarantined.total()
        counts = {"read": self.read, "kept": self.kept, "refused": refused, "refused_share": self.refused_share}
        return counts | ({"latex_mended": self.mended} if self.mended else {})


class Ingestion:
    """One pass over a source: iterate for its batches; the figures are complete when the iteration has ended."""

    def __init__(self, config: RawPoolConfig, setting: str = POOL_SETTING) -> None:
        """Find the sources of ``config.path``, which ``setting`` holds; raises SourceError when there are none."""
        self.config = config
        self.setting = setting
        with _naming(setting):
            self.sources = find_sources(config)
        self.counts = IngestCounts()
        self.statistics = PoolStatistics()
        self._seen: dict[str, str] = {}

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches until the sources are exhausted; raises SourceError when they do not fit the configuration."""
        self.counts, self.statistics, self._seen = IngestCounts(), PoolStatistics(), {}
        rows = read_rows(self.sources, self.config)
        # Batches are cut by rows alone: cut by size, they would depend on the answers.
        with _naming(self.setting):
            while (batch := self._batch(islice(rows, BATCH_ROWS))).height:
                yield batch

    def read(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return all questions (RAW_POOL) and gold answers (GOLD_LABELS); raises as ``check_counts`` does."""
        batches = list(self)
        check_counts(self.counts, self.config, self.setting)
        return pl.concat([batch.raw_pool for batch in batches]), pl.concat([batch.gold_labels for batch in batches])

    def tables(self) -> dict[str, str]:
        """Return Markdown tables of the pool and of the reasons of the refused rows."""
        return self.statistics.tables() | {"refused_by_reason": count_table("reason", self.counts.quarantined)}

    def _batch(self, rows: Iterator[SourceRow]) -> Batch:
        counts = self.counts
        kept: list[tuple[Any, ...]] = []
        gold: list[tuple[Any, ...]] = []
        refused: list[tuple[Any, ...]] = []
        for row in map(self._mend, rows):
            counts.read += 1
            outcome = self._question(row)
            if isinstance(outcome, Problem):
                reason, detail = outcome.reason.value, outcome.detail
                counts.quarantined[reason] += 1
                counts.first_refusal = counts.first_refusal or f"{row.place} {reason} ({detail})"
                refused.append((row.source, row.line, reason, detail, row.raw[:MAX_RAW_CHARS]))
                continue
            self._seen[outcome.id] = place = row.place
            kept.append((*outcome, place))
            if answer := self._gold(row, outcome):
                gold.append((outcome.id, answer.text, answer.index))
        batch = Batch(_frame(kept, RAW_POOL), _frame(gold, GOLD_LABELS), _frame(refused, QUARANTINE))
        counts.kept += batch.raw_pool.height
        counts.gold += batch.gold_labels.height
        self.statistics.add(batch.raw_pool)
        return batch

    def _mend(self, row: SourceRow) -> SourceRow:
        mended = row if isinstance(row.parsed, Problem) else row._replace(parsed=mend_latex(row.parsed))
        self.counts.mended += mended.parsed is not row.parsed
        return mended

    def _question(self, row: SourceRow) -> Question | Problem:
        if isinstance(row.parsed, Problem):
            return row.parsed
        outcome = parse_question(row.parsed, self.config)
        if isinstance(outcome, Question) and (first := self._seen.get(outcome.id)):
            return Problem(Reason.DUPLICATE, f"the same question and options as {first}")
        return outcome

    def _gold(self, row: SourceRow, question: Question) -> Gold | None:
        column = self.config.answer_column
        value = row.values.get(column) if row.values and column else None
        if not has_answer(value):
            return None
        gold = resolve_gold(value, question.options)
        self.counts.unusable_gold += gold is None
        return gold


@contextmanager
def _naming(setting: str) -> Iterator[None]:
    try:
        yield
    except SourceError as error:
        raise SourceError(f"{setting}: {error}") from error


def check_counts(counts: IngestCounts, config: RawPoolConfig, setting: str = POOL_SETTING) -> None:
    """Judge a finished ingestion; to be called after its tables, if any, are stored: the quarantine says more.

    Raises ArtifactError unless rows read = kept + quarantined, and QuarantineError when no row was kept, when part of a
    file could not be read, or when a larger share than ``config.max_quarantined_share`` was refused.
    """
    refused = counts.quarantined.total()
    if counts.read != counts.kept + refused:
        raise ArtifactError(
            f"{setting}: {config.path}: {counts.read} rows read but {counts.kept} kept and {refused} quarantined: "
            "materialize 'raw_pool' again"
        )
    remedy = "mend the rows" + (" listed in the quarantine table" if setting == POOL_SETTING else "")
    if not counts.kept:
        allowed = "no question is left"
    elif damaged := counts.quarantined[Reason.DAMAGED_FILE]:
        allowed = f"{damaged} of them stand for the unreadable rest of a file"
        remedy = f"{remedy}; a damaged file must be replaced or left out"
    elif counts.refused_share > config.max_quarantined_share:
        allowed = f"allowed {config.max_quarantined_share:.1%}"
        remedy = f"{remedy} or raise raw_pool.max_quarantined_share"
    else:
        return
    reasons = ", ".join(f"{reason} {count}" for reason, count in counts.quarantined.most_common(3))
    raise QuarantineError(
        f"{setting}: {config.path}: {refused} of {counts.read} rows refused ({counts.refused_share:.1%}, {allowed}): "
        f"{reasons}; first {counts.first_refusal}; {remedy}"
    )


def _frame(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pl.DataFrame:
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    arrays = [pa.array(cells, field.type) for cells, field in zip(columns, schema, strict=True)]
    return pl.DataFrame(pa.table(arrays, schema=schema))
