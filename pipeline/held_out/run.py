"""The stage ``tests``: held-out questions, and apart from them their gold answers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from pipeline.errors import SourceError
from pipeline.held_out.config import SplitOff, TestsConfig
from pipeline.held_out.questions import find_held_out
from pipeline.pool.config import AnsweredLayout
from pipeline.pool.ingest import Ingestion
from pipeline.pool.schemas import GOLD_LABELS
from pipeline.pool.source import Source
from pipeline.stage import Task


def sources(section: TestsConfig, settings: Callable[..., Any]) -> Sequence[Source]:
    """Return the files of the tests."""
    return [source for test in _files(section, settings).values() for source in test.sources]


def run(task: Task[TestsConfig]) -> None:
    """Read both tests. One that was split off the pool takes the place of a file; its gold is that of the pool.

    Raises SourceError when a test cannot be read or shares a question with the pool.
    """
    section, pool = task.section, task.inputs["pool"]
    ids = pool.scan().select("id").collect()["id"]
    files = _files(section, task.settings)
    no_gold = pl.DataFrame(GOLD_LABELS.empty_table())
    for split in ("in_domain", "out_of_domain"):
        questions, gold = pool.read(f"{split}_test"), no_gold
        if split in files:
            questions, gold = files[split].read()
            _check_leaks(questions, ids, files[split].setting)
        if section.limit is not None:
            # Ids are hashes of the content, so the lowest are a draw; files are often sorted by subject.
            questions = questions.filter(pl.col("id").is_in(questions["id"].sort().head(section.limit).implode()))
        task.writer.append(split, questions)
        task.writers["test_labels"].append(split, gold)


def _files(section: TestsConfig, settings: Callable[..., Any]) -> Mapping[str, Ingestion]:
    """Return the tests that are read from files: the others are split off the pool, or not wanted."""
    layout, split_off = settings("raw_pool", AnsweredLayout), settings("pool", SplitOff)
    paths = {
        "in_domain": None if split_off.in_domain_share else section.in_domain_path,
        "out_of_domain": None if split_off.out_of_domain else section.out_of_domain_path,
    }
    return {
        split: find_held_out(path, f"tests.{split}_path", layout) for split, path in paths.items() if path is not None
    }


def _check_leaks(questions: pl.DataFrame, pool: pl.Series, setting: str) -> None:
    leaked = questions.filter(pl.col("id").is_in(pool.implode()))
    if len(leaked):
        raise SourceError(
            f"{setting}: {len(leaked)} test questions stand in the pool too, the first at {leaked['source'][0]}: name "
            "the file in pool.decontaminate_against, or remove them from the test"
        )
