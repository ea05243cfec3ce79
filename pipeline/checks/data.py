"""Is what came in what was expected: the raw pool, the pool, the tests?"""

import polars as pl

from pipeline.checks.check import Evidence, Finding, at_least, at_most
from pipeline.pool.source import Reason

_SPLIT_OFF = ("in_domain_test", "out_of_domain_test")


def refused_share(evidence: Evidence) -> Finding | None:
    """Judge the rows of the source that are refused; the stage itself fails for the same reasons."""
    quarantine = evidence.run.find("quarantine")
    if quarantine is None:
        return None
    notes, limit = quarantine.manifest.notes, evidence.section.model_dump()["max_quarantined_share"]
    damaged = quarantine.scan().filter(pl.col("reason") == Reason.DAMAGED_FILE).select(pl.len()).collect().item()
    found = f"{notes['refused']} of {notes['read']} rows refused, {damaged} of them for the unreadable rest of a file"
    remedy = "mend what the quarantine table lists, or raise raw_pool.max_quarantined_share"
    share = notes["refused_share"] if notes["kept"] and not damaged else 1.0
    finding = at_most(share, limit, found, remedy)
    return (
        finding if not damaged else Finding(False, f"{found}: replace the damaged file or leave it out", share, limit)
    )


def dropped_share(evidence: Evidence) -> Finding | None:
    """Judge how much of the raw pool near-duplicates and contamination cost."""
    raw = evidence.rows("raw_pool")
    if not raw:
        return None
    dropped = evidence.own.scan("dropped").filter(~pl.col("reason").is_in(_SPLIT_OFF))
    n_dropped = dropped.select(pl.len()).collect().item()
    return at_most(
        n_dropped / raw,
        evidence.limits.max_dropped_share,
        f"{n_dropped} of {raw} questions dropped",
        "look at the twins in the table 'dropped'; if they are different questions of one template, raise the "
        "thresholds of the section 'pool'",
    )


def test_size(evidence: Evidence) -> Finding | None:
    """Judge whether both tests have enough questions for figures that say something."""
    sizes = {split: evidence.rows("tests", split) or 0 for split in ("in_domain", "out_of_domain")}
    found = ", ".join(f"{n} questions {split.replace('_', ' ')}" for split, n in sizes.items())
    remedy = "intervals will be wider than what methods differ by: raise tests.limit, or name larger tests"
    return at_least(min(sizes.values()), evidence.limits.min_test_questions, found, remedy)
