"""What people see of the raw pool."""

import polars as pl

from pipeline.plots import bars, histogram
from pipeline.store.artifact import Artifact


def question_lengths(raw_pool: Artifact) -> bytes:
    """Return how long questions are, as PNG."""
    lengths = raw_pool.scan().select(pl.col("question").str.len_chars()).collect()["question"]
    return histogram(lengths, "raw_pool", "characters of the question")


def refusal_reasons(quarantine: Artifact) -> bytes:
    """Return why rows were refused, as PNG."""
    counts = quarantine.scan().group_by("reason").len().sort("len", "reason").collect()
    return bars(counts["reason"].to_list(), counts["len"], "quarantine", "refused rows")


def right_options(labels: Artifact) -> bytes:
    """Return at which place of their options right answers stand, as PNG: choosing one place always gains as much."""
    gold = pl.concat(labels.scan(table).select("gold_index") for table in labels.tables)
    counts = gold.group_by("gold_index").len().sort("gold_index", descending=True, nulls_last=False).collect()
    names = ["open question" if index is None else f"option {index + 1}" for index in counts["gold_index"]]
    return bars(names, counts["len"], labels.name, "questions with a gold answer")
