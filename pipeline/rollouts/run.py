"""The stage ``rollouts``, and the sampling of any questions into shards, which other stages share."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import polars as pl

from pipeline.digests import digest_json
from pipeline.generation.generator import Generator
from pipeline.generation.transformers import TransformersGenerator
from pipeline.models import LanguageModel, load_model
from pipeline.rollouts.config import RolloutsConfig
from pipeline.rollouts.sample import Asking, sample_rollouts
from pipeline.stage import Task, resolve

_ASKED = ("id", "question", "options", "permutation")
"""Columns of a question that its responses depend on."""
_EARLY_LOOK: Final = "pipeline.answers.early:EarlyLook"
"""Named, not imported: it only warns, and its code must not count among what responses depend on."""


def run(task: Task[RolloutsConfig]) -> None:
    """Sample responses to every pool question."""
    sample_shards(task, "rollouts", task.inputs["pool"].read(), Asking.of(task.section, task.section))


def sample_shards(
    task: Task[Any],
    table: str,
    questions: pl.DataFrame,
    asking: Asking,
    contexts: Mapping[str, str] | None = None,
    adapter: tuple[Path, str] | None = None,
) -> None:
    """Make a sharded table of schema ROLLOUTS; a question's rows are taken over where it was asked the same before.

    Args:
        task: The stage at work.
        table: Table to make.
        questions: Questions, of schema RAW_POOL.
        asking: How they are asked.
        contexts: What stands before each question's prompt, by id; None for nothing.
        adapter: Folder and digest of an adapter to put into the model.
    """
    asked, shown = questions.select(_ASKED), contexts or {}
    keys = {row[0]: digest_json([*row[1:], shown.get(row[0])])[:32] for row in asked.iter_rows()}

    @cache
    def loaded() -> tuple[LanguageModel, Generator, Any]:
        model = load_model(task.model, adapter and adapter[0])
        look = resolve(_EARLY_LOOK)(task.writer.name, asked, model.tokenizer)
        return model, TransformersGenerator(model, asking.batch_tokens), look  # kept, as is a budget once lowered

    def compute(ids: Sequence[str], done: Callable[[float], object]) -> Mapping[str, pl.DataFrame]:
        chosen = asked.filter(pl.col("id").is_in(list(ids)))
        model, generator, look = loaded()
        batches = sample_rollouts(chosen, model, asking, contexts, lambda n: done(n / asking.n_samples), generator)
        rows = pl.concat([look.see(batch) for batch in batches])
        look.pause()
        return {table: rows}

    recipe = {"asking": asking.material(), "adapter": adapter and adapter[1]}
    task.make_shards((table,), keys, recipe, ("pipeline.rollouts.sample",), compute)
    reasons = pl.scan_parquet(task.writer.shards(table)).group_by("finish_reason").len().sort("finish_reason")
    task.writer.notes[f"finish_reasons/{table}"] = dict(reasons.collect().iter_rows())
