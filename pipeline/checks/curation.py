"""Are the chosen questions and their worked examples what was asked for, and do the examples tell anything?"""

import polars as pl

from pipeline.checks.check import Evidence, Finding, at_least, at_most
from pipeline.teacher.echo import MUCH


def selection_size(evidence: Evidence) -> Finding:
    """Judge how many questions were chosen of those that the budget asks for."""
    subset, settings = evidence.own.read(), evidence.section.model_dump()
    chosen = int(subset["selected"].sum())
    asked = settings["count"] or max(1, round(settings["fraction"] * subset.height))
    return at_least(
        chosen / asked,
        evidence.limits.min_selected_share,
        f"{chosen} of {subset.height} questions chosen, {asked} asked for",
        f"rule '{settings['rule']}' could not score the others (column 'reason'): take another curated_subset.rule, or "
        "mend what left them without votes or scores",
    )


def context_twins(evidence: Evidence) -> Finding:
    """Judge that no question is shown itself or a near-duplicate of itself as a worked example."""
    if evidence.section.model_dump()["builder"] == "pseudo_solution":
        return Finding(True, "every question is shown its own response, as the builder pseudo_solution is meant to")
    pairs = evidence.own.scan().select("id", shown="demonstration_ids").explode("shown", empty_as_null=False)
    pool = evidence.run.require("pool").scan().select("id", "group")
    met = (
        pairs.join(pool, on="id", how="left")
        .join(pool.rename({"id": "shown", "group": "shown_group"}), on="shown", how="left")
        .with_columns(
            foreign=pl.col("shown_group").is_null(),
            twin=(pl.col("id") == pl.col("shown")) | (pl.col("group") == pl.col("shown_group")),
        )
        .select(pl.len(), pl.col("foreign", "twin").sum())
        .collect()
    )
    n_pairs, foreign, twins = met.row(0)
    found = f"of {n_pairs} worked examples {twins} are the question itself or its twin, {foreign} are not of the pool"
    remedy = "the teacher would be told the answer: materialize 'pool' and 'teacher_contexts' again, or report it"
    return at_most(twins + foreign, 0, found, remedy)


def token_budget(evidence: Evidence) -> Finding | None:
    """Judge that no teacher's prompt with examples exceeds its budget."""
    shown = evidence.own.scan().filter(pl.col("demonstration_ids").list.len() > 0)
    longest = shown.select(pl.col("n_teacher_tokens").max()).collect().item()
    if longest is None:
        return None
    limit = evidence.section.model_dump()["max_teacher_tokens"]
    remedy = "examples would be cut somewhere: materialize 'teacher_contexts' again, or report it"
    return at_most(longest, limit, f"the longest teacher's prompt has {longest} tokens of {limit}", remedy)


def examples_dropped(evidence: Evidence) -> Finding | None:
    """Judge how many worked examples did not fit into the budget."""
    counts = evidence.own.scan().select(pl.col("n_dropped").sum(), shown=pl.col("demonstration_ids").list.len().sum())
    dropped, shown = counts.collect().row(0)
    if not dropped + shown:
        return None
    return at_most(
        dropped / (dropped + shown),
        evidence.limits.max_examples_dropped,
        f"{dropped} of {dropped + shown} worked examples left out because they do not fit",
        "raise teacher_contexts.max_teacher_tokens, or lower teacher_contexts.n_demonstrations",
    )


def answer_echo(evidence: Evidence) -> Finding | None:
    """Judge how often worked examples state the target's own pseudo-answer or its letter, above chance."""
    notes = evidence.notes
    excess = [notes[echo] - notes[f"{echo}_by_chance"] for echo in ("answer_echo", "letter_echo") if echo in notes]
    if not excess:
        return None
    found = f"worked examples state the target's own answer or letter {max(excess):+.1%} more often than by chance"
    return Finding("warning" not in notes, notes.get("warning", found), max(excess), MUCH)


def lift(evidence: Evidence) -> Finding | None:
    """Judge whether the worked examples tell the model anything that it would not say by itself."""
    notes = evidence.notes
    if "outcome" not in notes:
        return None
    remedy = (
        "Take another teacher_contexts.builder, more teacher_contexts.n_demonstrations or a larger model; "
        "distilled_adapter.require_lift=stop stops here."
    )
    passed, figures = notes["outcome"] == "go", notes.get("lift", {})
    return Finding(passed, notes["verdict"] if passed else f"{notes['verdict']} {remedy}", figures.get("low"), 0.0)
