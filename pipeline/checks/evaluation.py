"""Did distillation harm what it must not harm? Reads the evaluation, which has seen gold answers."""

import polars as pl

from pipeline.checks.check import Evidence, Finding

_COMPARED = "distilled - untouched"


def in_domain_accuracy(evidence: Evidence) -> Finding | None:
    """Judge that the distilled model is not certainly worse than the untouched one on its own domain."""
    rows = _differences(evidence).filter(metric="avg_at_k", split="in_domain")
    remedy = "do not use this adapter; see teacher_lift and the training's plot for why"
    return _worst(rows, evidence.limits.max_accuracy_loss, -1, f"in-domain accuracy certainly fell: {remedy}")


def out_of_domain_loss(evidence: Evidence) -> Finding | None:
    """Judge that accuracy out of domain is kept within the margin."""
    rows = _differences(evidence).filter(metric="avg_at_k", split="out_of_domain")
    remedy = "lower distilled_adapter.learning_rate or steps, or distil towards the base teacher"
    return _worst(rows, evidence.limits.max_accuracy_loss, -1, f"out-of-domain accuracy was lost: {remedy}")


def calibration_drift(evidence: Evidence) -> Finding | None:
    """Judge that the calibration error has not certainly risen by more than the margin, in either test."""
    rows = _differences(evidence).filter(pl.col("metric").is_in(["ece_vote", "ece_option"]))
    remedy = "the model is surer than it is right: lower distilled_adapter.steps, or look at the reliability diagram"
    return _worst(rows, evidence.limits.max_ece_rise, 1, f"calibration got worse: {remedy}")


def _differences(evidence: Evidence) -> pl.DataFrame:
    return evidence.own.read("metrics").filter(pl.col("model") == _COMPARED)


def _worst(rows: pl.DataFrame, limit: float, harm: int, remedy: str) -> Finding | None:
    """Return the difference that harms most; it fails beyond the limit where its interval leaves no doubt of harm."""
    harms = rows.select(
        "split",
        "metric",
        "value",
        "low",
        "high",
        harm=harm * pl.col("value"),
        certain=pl.min_horizontal(harm * pl.col("low"), harm * pl.col("high")) > 0,
    ).drop_nulls()
    if harms.is_empty():
        return None
    worst = harms.sort("certain", "harm", "split", "metric").row(-1, named=True)
    found = "{metric} {split}, distilled - untouched: {value:+.3f} [{low:+.3f}, {high:+.3f}]".format(**worst)
    passed = not (worst["certain"] and worst["harm"] > limit)
    return Finding(passed, found if passed else f"{found}; {remedy}", worst["harm"], limit)
