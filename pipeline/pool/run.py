"""The stage ``raw_pool``: a source becomes the artifacts ``raw_pool``, ``gold_labels`` and ``quarantine``."""

from collections.abc import Callable, Sequence
from typing import Any

from pipeline.errors import QuarantineError
from pipeline.pool.config import RawPoolConfig
from pipeline.pool.ingest import Ingestion, check_counts
from pipeline.pool.source import Source
from pipeline.stage import Task


def sources(section: RawPoolConfig, _settings: Callable[..., Any]) -> Sequence[Source]:
    """Return the files of the pool; raises SourceError when there are none."""
    return Ingestion(section).sources


def run(task: Task[RawPoolConfig]) -> None:
    """Read the source. Too many refused rows fail the stage, but the quarantine is stored even then."""
    ingestion = Ingestion(task.section)
    kept, gold, quarantine = (task.writers[name] for name in ("raw_pool", "gold_labels", "quarantine"))
    for batch in ingestion:
        kept.append("raw_pool", batch.raw_pool)
        gold.append("gold_labels", batch.gold_labels)
        quarantine.append("quarantine", batch.quarantine)
    counts = ingestion.counts
    try:
        check_counts(counts, task.section)
    except QuarantineError as error:
        task.refusal = error
        kept.discarded = gold.discarded = True
    kept.notes = quarantine.notes = counts.rows() | ingestion.tables()
    gold.notes = {"usable": counts.gold, "unusable": counts.unusable_gold}
