"""What people see of the tests."""

import polars as pl

from pipeline.plots import bars
from pipeline.store.artifact import Artifact


def domains(tests: Artifact) -> bytes:
    """Return how many questions each test has of each domain, as PNG."""
    counts = pl.concat(
        tests.scan(split).group_by("domain").len().sort("len", "domain").with_columns(split=pl.lit(split))
        for split in ("out_of_domain", "in_domain")
    ).collect()
    names = [f"{domain or '(none)'}, {split}" for domain, split in counts.select("domain", "split").iter_rows()]
    return bars(names, counts["len"], "tests", "questions")
