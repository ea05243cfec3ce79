"""The stage ``pool``: what of the raw pool may be trained on."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import polars as pl

from pipeline.deduplication.config import PoolConfig
from pipeline.deduplication.prune import Pruned, prune
from pipeline.deduplication.statistics import describe
from pipeline.errors import SourceError
from pipeline.held_out.questions import find_held_out
from pipeline.pool.config import AnsweredLayout, Layout
from pipeline.pool.ingest import Ingestion
from pipeline.pool.source import Source
from pipeline.stage import Task


def sources(section: PoolConfig, settings: Callable[..., Any]) -> Sequence[Source]:
    """Return the files of the questions that must not stand in the pool."""
    tests = _tests(section, settings("raw_pool", Layout))
    return [source for test in tests for source in test.sources]


def run(task: Task[PoolConfig]) -> None:
    """Leave out near-duplicates, contaminated questions and held-out tests; raises SourceError when none is left."""
    tests = _tests(task.section, task.settings("raw_pool", Layout))
    questions = [test.read()[0] for test in tests]
    pruned = prune(task.inputs["raw_pool"].read(), pl.concat(questions) if questions else None, task.section)
    if pruned.pool.is_empty():
        raise SourceError(f"no question is left in the pool: {pruned.reasons()}; change the section 'pool'")
    for table in fields(Pruned):
        task.writer.append(table.name, getattr(pruned, table.name))
    task.writer.notes = describe(pruned)


def _tests(section: PoolConfig, layout: Layout) -> list[Ingestion]:
    unanswered = AnsweredLayout(**layout.model_dump(), answer_column=None)
    return [find_held_out(path, "pool.decontaminate_against", unanswered) for path in section.decontaminate_against]
