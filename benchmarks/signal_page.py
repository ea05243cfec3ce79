"""The page that says what the signals of the neurons add: words from figures, each with its interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from benchmarks.signal_statistics import GAINS
from pipeline.markdown import markdown_table

_TITLES = {
    "right": "the pseudo-label is right (AUROC, and partial rank correlation)",
    "teacher_gain": "what the teacher gains (rank correlation)",
    "student_gain": "what a student gains on a question that it trained on (rank correlation)",
    "near_gain": "what a student gains on the questions nearest to one that it trained on (rank correlation)",
}
_NEURONS = frozenset(
    (
        *("neuron_support", "neuron_support_per_token", "neuron_support_residual", "neuron_coverage"),
        *("neuron_agreement", "agreement_beyond_answers", "stem_coverage", "stem_density", "stem_concentration"),
    )
)
_SHOWN = (
    *("random", "neuron_support", "neuron_agreement", "stem_coverage", "disagreement"),
    *("belief_shift", "confident_shift", "steady_shift", "new_answer"),
)
_HOW = """\
A signal is worth what it tells of a question beyond what is known for nothing: *partial* is the rank correlation given
vote share, entropy of the votes and length of the responses (residuals of ranks). All signals are turned such that a
rule keeps large ones first; a question that a rule cannot score counts as its last. *Right*: among questions with a
majority, whether it is. *Teacher's gain*: share right with the worked examples minus share right without. *Student's
gain*: share right of the student that was distilled on random questions minus the untouched model's, on the questions
that it trained on; *near*: the same, averaged over those of the five nearest questions that it did not train on. All
gains are of fresh samples, four a side, which no signal has seen. Brackets are 95 % bootstrap intervals over questions
and, where there are several, seeds; nothing is corrected for the number of signals, so one in twenty of those without
worth will look as if it had some. Signals from `stem_density` on are no rules: `stem_*` are sizes of the neuron set of
the question's own stem; `agreement_beyond_answers` is `neuron_agreement` given vote share and entropy;
`shift_by_wrong_context` is how far another question's examples move the answers, `shift_over_control` how much further
its own do; `gradient_norm`, `near_step_gain` and `near_step_cosine` are of the first-order effect of one training step
on the question and on those near it (`benchmarks/signal_probe.py`)."""


@dataclass(frozen=True)
class Figures:
    """What the page is made of."""

    signals: pl.DataFrame
    """Rows of ``signal_rows``."""
    learnt: pl.DataFrame
    """Rows of ``learnt_rows``."""
    overlap: pl.DataFrame
    """Mean Jaccard similarity of every two rules' choices per world."""
    causal: pl.DataFrame
    """What silencing neurons costs, over the questions that each rule keeps."""


def write_page(
    figures: Figures, sizes: Mapping[str, tuple[int, int]], fitted: str, names: Sequence[str], command: str
) -> str:
    """Return the page as Markdown.

    Args:
        figures: Its tables.
        sizes: Questions and seeds per world.
        fitted: World that combinations were learnt on.
        names: Signals, in their order.
        command: What makes the page again.
    """
    signals, learnt = figures.signals, figures.learnt
    what = "; ".join(f"{world}: {n} questions, {seeds} seed(s)" for world, (n, seeds) in sizes.items())
    parts = ["# Do the neurons add anything?", what + ".", f"```\n{command}\n```", "## In words"]
    parts += ["\n".join(_words(signals, learnt, world, fitted) for world in sizes), "## How to read the figures", _HOW]
    for gain in GAINS:
        of_gain = signals.filter(pl.col("outcome") == gain).drop_nulls("value").filter(pl.col("value").is_finite())
        if len(of_gain):
            parts += [
                f"## A signal and whether {_TITLES[gain]}" if gain == "right" else f"## A signal and {_TITLES[gain]}"
            ]
            parts.append(_signal_table(of_gain, names, list(sizes)))
    parts += ["## A signal and itself under another seed of the responses (rank correlation)"]
    parts.append(_signal_table(signals.filter(pl.col("kind") == "stability"), names, list(sizes)))
    parts += [
        f"## Combinations learnt on {fitted}: rank correlation with the teacher's gain elsewhere",
        _learnt(learnt),
    ]
    parts += ["## Share of questions that two rules both keep (Jaccard similarity, mean over worlds and seeds)"]
    parts.append(_overlap(figures.overlap))
    parts += [f"## What silencing a response's leading neurons costs it beyond random ones ({next(iter(sizes))}, nats)"]
    causal = [{"rule": row["rule"], "questions": row["n"], "cost": _cell(row)} for row in figures.causal.to_dicts()]
    parts.append(markdown_table(pl.DataFrame(causal)))
    return "\n\n".join(parts) + "\n"


def _words(signals: pl.DataFrame, learnt: pl.DataFrame, world: str, fitted: str) -> str:
    """Return what holds on a world, in words."""
    lines = [f"**{world}**"]
    for gain, said in (
        ("right", "that a pseudo-label is right"),
        ("teacher_gain", "of what the teacher gains"),
        ("near_gain", "of what a student gains on near questions"),
    ):
        own = signals.filter(
            (pl.col("world") == world) & (pl.col("outcome") == gain) & (pl.col("kind") == "partial")
        ).filter(pl.col("value").is_finite())
        if own.is_empty():
            continue
        shown = own.filter((pl.col("low") > 0) | (pl.col("high") < 0)).sort(pl.col("value").abs(), descending=True)
        is_neuron = pl.col("signal").is_in(list(_NEURONS))
        for kind, told in (("neurons", shown.filter(is_neuron)), ("others", shown.filter(~is_neuron))):
            each = ", ".join(f"`{row['signal']}` {_cell(row)}" for row in told.head(4).to_dicts()) or "nothing"
            what = "Signals of neurons alone" if kind == "neurons" else "Other signals"
            lines.append(f"- {what} tell {said}, beyond vote share, entropy and length: {each}.")
    added = learnt.filter((pl.col("world") == world) & pl.col("over").is_not_null())
    for row in added.to_dicts():
        verdict = "adds" if row["low"] > 0 else "costs" if row["high"] < 0 else "adds nothing that shows"
        new = row["signals"].removeprefix(row["over"]).removeprefix(", ")
        lines.append(f"- Learnt on {fitted}, {new} over {row['over']}: {verdict} ({_cell(row)}).")
    return "\n".join(lines) + "\n"


def _signal_table(rows: pl.DataFrame, names: Sequence[str], worlds: Sequence[str]) -> str:
    found = {(row["world"], row["signal"], row["kind"]): row for row in rows.to_dicts()}
    kinds = [kind for kind in ("alone", "partial", "stability") if kind in rows["kind"]]
    table = [
        {"signal": name}
        | {
            f"{world}, {kind}" if len(kinds) > 1 else world: _cell(found.get((world, name, kind)))
            for world in worlds
            for kind in kinds
            if (rows["world"] == world).any()
        }
        for name in names
    ]
    return markdown_table(pl.DataFrame(table))


def _learnt(learnt: pl.DataFrame) -> str:
    found = {(row["world"], row["signals"], row["over"]): row for row in learnt.to_dicts()}
    worlds = learnt["world"].unique(maintain_order=True)
    kinds = learnt.select("signals", "over").unique(maintain_order=True).rows()
    rows = [
        {"signals": signals if over is None else f"{signals} - {over}"}
        | {world: _cell(found.get((world, signals, over))) for world in worlds}
        for signals, over in kinds
    ]
    return markdown_table(pl.DataFrame(rows))


def _overlap(overlap: pl.DataFrame) -> str:
    means = overlap.group_by("rule", "other").agg(pl.col("jaccard").mean())
    found = {(rule, other): share for rule, other, share in means.iter_rows()}
    rows = [{"rule": rule} | {other: f"{found[rule, other]:.2f}" for other in _SHOWN} for rule in _SHOWN]
    return markdown_table(pl.DataFrame(rows))


def _cell(row: Mapping[str, float] | None) -> str:
    if row is None or row["value"] != row["value"]:
        return "-"
    return f"{row['value']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
