"""Was a training sound?"""

import polars as pl

from pipeline.checks.check import Evidence, Finding, at_most

_FIGURES = ("loss", "grad_norm", "kl_to_base")
_LEAST_KL = -1e-4
"""A divergence is not negative; so much is rounding in bfloat16 over a vocabulary (own choice)."""


def finite_steps(evidence: Evidence) -> Finding | None:
    """Judge that loss, gradient norm and the divergence from the base model are numbers at every step."""
    if "skipped" in evidence.notes:
        return None
    log = evidence.own.read()
    wrong = pl.any_horizontal(~pl.col(_FIGURES).is_finite(), pl.col("kl_to_base") < _LEAST_KL)
    steps = log.filter(wrong.fill_null(value=False))["step"].to_list()
    name = evidence.stage
    return at_most(
        len(steps),
        0,
        f"{len(steps)} of {log.height} steps have a loss, gradient or divergence that is no number or impossible",
        f"first at step {steps[0] if steps else 0}; lower {name}.learning_rate, or train with model.dtype=float32",
    )


def collapse(evidence: Evidence) -> Finding | None:
    """Judge whether the guard saw the training collapse."""
    notes = evidence.notes
    if "skipped" in notes:
        return None
    step = notes.get("stopped_at", notes.get("warned_at"))
    if step is None:
        return Finding(True, "the guard saw no collapse")
    because = notes.get("stopped_because", notes.get("warned_because"))
    kept = f", and the adapter of step {notes['kept_step']} was kept" if "kept_step" in notes else ""
    remedy = f"lower {evidence.stage}.learning_rate or {evidence.stage}.steps before you use the adapter"
    return Finding(False, f"collapsed at step {step}{kept}: {because}; {remedy}", float(step))
