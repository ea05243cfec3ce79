"""The stage ``raw_pool``: streams a source into three tables (pool, gold answers, quarantine), a batch at a time.

Every row read is either kept or quarantined with a reason. Pool and quarantine reasons never depend on an answer.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import polars as pl
import pyarrow as pa

from pipeline.config import RawPoolConfig
from pipeline.errors import ArtifactError, SourceError
from pipeline.pool.gold import Gold, has_answer, resolve_gold
from pipeline.pool.question import Question, parse_question
from pipeline.pool.reader import read_rows
from pipeline.pool.source import Problem, Reason, SourceRow
from pipeline.schemas import GOLD_LABELS, QUARANTINE, RAW_POOL

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
    domains: Counter[str] = field(default_factory=Counter)
    """Kept questions per domain."""
    first_refusal: str = ""
    """Place, reason and detail of the first refused row."""


class Ingestion:
    """One pass over a source: iterate for its batches; ``counts`` is complete when the iteration has ended."""

    def __init__(self, config: RawPoolConfig) -> None:
        self.config = config
        self.counts = IngestCounts()
        self._seen: dict[str, str] = {}

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches until the source is exhausted; raises SourceError when it is unusable as a whole."""
        self.counts = IngestCounts()
        self._seen = {}
        rows = read_rows(self.config)
        # Batches are cut by rows alone: cut by size, they would depend on the answers.
        while (batch := self._batch(islice(rows, BATCH_ROWS))).height:
            yield batch

    def _batch(self, rows: Iterator[SourceRow]) -> Batch:
        kept: list[tuple[Any, ...]] = []
        gold: list[tuple[Any, ...]] = []
        refused: list[tuple[str, ...]] = []
        for row in rows:
            self.counts.read += 1
            outcome = self._question(row)
            if isinstance(outcome, Problem):
                refused.append((row.source, str(outcome.reason), outcome.detail, row.raw[:MAX_RAW_CHARS]))
                continue
            self._seen[outcome.id] = row.source
            kept.append((outcome.id, outcome.text, outcome.options, outcome.domain, row.source, outcome.prompt))
            if answer := self._gold(row, outcome):
                gold.append((outcome.id, answer.text, answer.index))
        batch = Batch(_frame(kept, RAW_POOL), _frame(gold, GOLD_LABELS), _frame(refused, QUARANTINE))
        self._count(batch)
        return batch

    def _question(self, row: SourceRow) -> Question | Problem:
        if row.problem is not None:
            return row.problem
        outcome = parse_question(row.values or {}, self.config)
        if isinstance(outcome, Question) and outcome.id in self._seen:
            return Problem(Reason.DUPLICATE, f"the same question and options as {self._seen[outcome.id]}")
        return outcome

    def _gold(self, row: SourceRow, question: Question) -> Gold | None:
        column = self.config.answer_column
        value = row.values.get(column) if row.values and column else None
        gold = resolve_gold(value, question.options) if has_answer(value) else None
        self.counts.unusable_gold += gold is None and has_answer(value)
        return gold

    def _count(self, batch: Batch) -> None:
        counts = self.counts
        counts.kept += batch.raw_pool.height
        counts.gold += batch.gold_labels.height
        counts.domains.update(batch.raw_pool["domain"])
        counts.quarantined.update(batch.quarantine["reason"])
        if not counts.first_refusal and not batch.quarantine.is_empty():
            first = batch.quarantine.row(0, named=True)
            counts.first_refusal = f"{first['source']} {first['reason']} ({first['detail']})"


def check_counts(counts: IngestCounts, config: RawPoolConfig) -> None:
    """Judge a finished ingestion; to be called after its tables are stored, so that the quarantine can be read.

    Raises ArtifactError unless rows read = kept + quarantined, and SourceError when no row was kept or a larger share
    than ``config.max_quarantined_share`` was refused.
    """
    refused = counts.quarantined.total()
    if counts.read != counts.kept + refused:
        raise ArtifactError(
            f"{config.path}: {counts.read} rows read but {counts.kept} kept and {refused} quarantined: "
            "materialize 'raw_pool' again"
        )
    share = refused / max(counts.read, 1)
    if counts.kept and share <= config.max_quarantined_share:
        return
    reasons = ", ".join(f"{reason} {count}" for reason, count in counts.quarantined.most_common(3))
    allowed = f"allowed {config.max_quarantined_share:.1%}" if counts.kept else "no question is left"
    raise SourceError(
        f"{config.path}: {refused} of {counts.read} rows refused ({share:.1%}, {allowed}): {reasons}; first "
        f"{counts.first_refusal}; mend the rows listed in the quarantine table"
        + (" or raise raw_pool.max_quarantined_share" if counts.kept else "")
    )


def _frame(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=pl.DataFrame(schema.empty_table()).schema, orient="row")
