"""The page that says what the signals of the neurons add: words from figures, each with its interval."""

from collections.abc import Iterator, Mapping, Sequence

import polars as pl
from matplotlib.figure import Figure

from benchmarks.signal_statistics import ALL_WORLDS, FAMILIES, N_RESAMPLES, signals_of
from benchmarks.signal_tables import N_SAMPLES, OUTCOMES
from pipeline.markdown import markdown_table
from pipeline.plots import figure_png

_LEVEL = 0.05
_SAID = {
    "right": "whether a pseudo-label is right",
    "teacher_gain": "what the teacher gains by its examples",
    "student_gain": "what a student gains on a question that it trained on",
    "near_gain": "what a student gains on the questions nearest to one that it trained on",
}
_COLOURS = ("#999999", "#0072B2", "#D55E00", "#CC79A7", "#E69F00", "#009E73")
_SHOWN = (
    *("random", "neuron_support", "neuron_agreement", "stem_coverage", "disagreement"),
    *("belief_shift", "confident_shift", "steady_shift", "new_answer"),
)
_HOW = f"""\
A signal is worth what it tells of a question beyond what is known for nothing: *given answers* is the rank correlation
given vote share, entropy of the votes and length of the responses (residuals of ranks). All signals are turned such
that a rule keeps large ones first; a question that a rule cannot score counts as its last. *Right*: among questions
with a majority, whether it is; alone, by AUROC. *Teacher's gain*: share right with the worked examples minus share
right without. *Student's gain*: share right of the student that was distilled on random questions minus the untouched
model's, on the questions that it trained on; *near*: the same, averaged over those of the five nearest questions that
it did not train on, which lie near several, so these intervals are too narrow. All gains are of fresh samples,
{N_SAMPLES} a side, which no signal has seen. Brackets are 95 % bootstrap intervals over questions and seeds
({N_RESAMPLES:,} resamples), within these worlds. A star marks p < {_LEVEL} after correction for all signals held
against one outcome on one world (Benjamini and Yekutieli).

Neurons, responses' or stems', choose the examples too (`stem_overlap`): signals of contexts are not free of them.
`stem_*` are of the neuron set of the question's own stem; `shift_by_wrong_context` is how far another question's
examples move the answers, `shift_over_control` how much further its own do; `gradient_norm`, `near_step_gain` and
`near_step_cosine` are of the first-order effect of one training step on the question and on those near it
(`benchmarks/signal_probe.py`), whose size is how far examples move the probabilities of responses: a shift, too.
Rules that read contexts were chosen in sight of gold of these worlds, under seeds 0 to 2: that flatters them here. Of a
run that stands elsewhere nothing is sampled, so that gains, wrong contexts and gradients are left out."""


def forest(signals: pl.DataFrame) -> bytes:
    """Return what each signal tells given answers, of rightness and of the teacher's gain, mean over worlds, as PNG."""
    own = signals.filter(pl.col("world") == ALL_WORLDS, pl.col("kind") == "partial").drop_nulls("value")
    family = {name: colour for names, colour in zip(FAMILIES.values(), _COLOURS, strict=True) for name in names}
    names = [name for name in family if name in own["signal"]][::-1]
    figure = Figure(figsize=(10, 1.2 + 0.26 * len(names)), layout="constrained")
    for axes, outcome in zip(figure.subplots(1, 2, sharey=True), ("right", "teacher_gain"), strict=True):
        rows = {row["signal"]: row for row in own.filter(pl.col("outcome") == outcome).to_dicts()}
        axes.axvline(0, color="0.6", linewidth=1)
        for place, name in enumerate(names):
            value, low, high = (rows[name][key] for key in ("value", "low", "high"))
            face = family[name] if _holds(rows[name]) else "white"
            axes.errorbar(
                value, place, xerr=[[value - low], [high - value]], fmt="o", color=family[name], mfc=face, capsize=2
            )
        axes.set(title=_SAID[outcome], xlabel="rank correlation given vote share, entropy and length")
        axes.set_yticks(range(len(names)), names)
    figure.legend(
        handles=[
            axes.scatter([], [], color=colour, label=name) for name, colour in zip(FAMILIES, _COLOURS, strict=True)
        ],
        loc="outside lower center",
        ncols=len(FAMILIES),
        frameon=False,
    )
    return figure_png(figure)


def write_page(results: Mapping[str, pl.DataFrame], tables: Mapping[str, Sequence[pl.DataFrame]], command: str) -> str:
    """Return the page as Markdown.

    Args:
        results: ``signals``, ``learnt``, ``overlap`` and ``causal``, as they stand in files of these names.
        tables: Of ``signal_table``, one per seed, by the name of their world.
        command: What makes the page again.
    """
    signals, learnt = results["signals"], results["learnt"]
    worlds = list(tables)
    names = signals_of(next(iter(tables.values()))[0])
    parts = ["# Do the neurons add anything?", _sizes(tables), "![Forest plot](forest.png)", "## In words"]
    parts += ["\n".join(_words(signals, outcome, worlds)) for outcome in OUTCOMES]
    parts += [
        "\n".join(["**Combinations learnt on the other worlds**", "", *_learnt_words(learnt)]),
        f"```\n{command}\n```",
        "## How to read the figures",
        _HOW,
    ]
    for outcome in OUTCOMES:
        own = signals.filter(pl.col("outcome") == outcome)
        parts += [f"## A signal and {_SAID[outcome]}", _signal_table(own, names, worlds)]
    parts += ["## A signal and itself under another seed of the responses (rank correlation)"]
    parts += [_signal_table(signals.filter(pl.col("kind") == "stability"), names, worlds)]
    parts += [
        "## Combinations learnt on the other worlds: AUROC of rightness, rank correlation with the teacher's gain",
        _learnt_table(learnt, worlds),
    ]
    parts += ["## Share of questions that two rules both keep (Jaccard similarity, mean over worlds and seeds)"]
    parts += [_overlap(results["overlap"])]
    parts += ["## What silencing a response's leading neurons costs beyond random ones (nats per token)"]
    parts += ["Mean over the questions that a rule keeps, and how much more than over the others.", ""]
    parts += [_causal(results["causal"])]
    return "\n\n".join(part for part in parts if part) + "\n"


def _sizes(tables: Mapping[str, Sequence[pl.DataFrame]]) -> str:
    """Return what there was to tell on each world."""
    rows = []
    for world, each in tables.items():
        means = pl.concat([table.select(OUTCOMES) for table in each]).mean().row(0)
        right, *gains = ("-" if mean is None else f"{100 * mean:.1f}" for mean in means)
        row = {"world": world, "seeds": len(each), "questions": len(each[0]), "pseudo-labels right, %": right}
        rows.append(row | dict(zip((f"{name}, points" for name in OUTCOMES[1:]), gains, strict=True)))
    return markdown_table(pl.DataFrame(rows))


def _holds(row: Mapping[str, float | None] | None) -> bool:
    return bool(row) and row["p_adjusted"] is not None and row["p_adjusted"] < _LEVEL


def _words(signals: pl.DataFrame, outcome: str, worlds: Sequence[str]) -> Iterator[str]:
    """Yield what tells of an outcome beyond answers: by family in the mean over the study's worlds, and elsewhere."""
    own = signals.filter(pl.col("outcome") == outcome, pl.col("kind") == "partial").drop_nulls("value")
    rows = {
        name: {row["world"]: row for row in of.to_dicts()}
        for (name,), of in own.partition_by("signal", as_dict=True).items()
    }
    study = [world for world in worlds if world.startswith("world ")]
    yield f"**{_SAID[outcome][0].upper()}{_SAID[outcome][1:]}**, given vote share, entropy and length:\n"
    for family, names in FAMILIES.items():
        means = [rows[name][ALL_WORLDS] for name in names if name in rows and ALL_WORLDS in rows[name]]
        told = []
        for mean in sorted(filter(_holds, means), key=lambda row: -abs(row["value"])):
            alike = [
                row
                for world in study
                if _holds(row := rows[mean["signal"]][world]) and row["value"] * mean["value"] > 0
            ]
            told.append(f"`{mean['signal']}` {_cell(mean)}, on {len(alike)} of {len(study)} worlds alone")
        yield f"- {family} ({len(told)} of {len(means)}): {'; '.join(told) or 'nothing that shows'}."
    for world in worlds[len(study) :]:
        if found := [by_world[world] for by_world in rows.values() if world in by_world]:
            told = [f"`{row['signal']}` {_cell(row)}" for row in found if _holds(row)]
            yield f"- {world} ({len(told)} of {len(found)}): {'; '.join(told) or 'nothing that shows'}."


def _learnt_words(learnt: pl.DataFrame) -> Iterator[str]:
    for row in learnt.drop_nulls("over").filter(pl.col("world") == ALL_WORLDS).to_dicts():
        verdict = "add nothing that shows" if not _holds(row) else "add" if row["value"] > 0 else "cost"
        new = row["signals"].removeprefix(f"{row['over']}, ")
        yield f"- {_SAID[row['outcome']]}: over {row['over'].replace(', ', ' + ')}, {new} {verdict}, {_cell(row, 3)}."


def _signal_table(rows: pl.DataFrame, names: Sequence[str], worlds: Sequence[str]) -> str:
    found = {(row["signal"], row["world"], row["kind"]): row for row in rows.to_dicts()}
    columns = {f"{ALL_WORLDS}, alone": (ALL_WORLDS, "alone")}
    columns |= {f"{world}, given answers": (world, "partial") for world in (ALL_WORLDS, *worlds)}
    columns |= {f"{world}, other seed": (world, "stability") for world in (ALL_WORLDS, *worlds)}
    shown = {head: key for head, key in columns.items() if key in set(rows.select("world", "kind").iter_rows())}
    table = [{"signal": name} | {head: _cell(found.get((name, *key))) for head, key in shown.items()} for name in names]
    return markdown_table(pl.DataFrame(table))


def _learnt_table(learnt: pl.DataFrame, worlds: Sequence[str]) -> str:
    found = {(row["outcome"], row["signals"], row["over"], row["world"]): row for row in learnt.to_dicts()}
    rows = [
        {"outcome": outcome, "signals": signals if over is None else f"{signals} - {over}"}
        | {world: _cell(found.get((outcome, signals, over, world)), 3) for world in (ALL_WORLDS, *worlds)}
        for outcome, signals, over in learnt.select("outcome", "signals", "over").unique(maintain_order=True).rows()
    ]
    return markdown_table(pl.DataFrame(rows).sort("outcome", maintain_order=True))


def _overlap(overlap: pl.DataFrame) -> str:
    means = overlap.group_by("rule", "other").agg(pl.col("jaccard").mean())
    found = {(rule, other): share for rule, other, share in means.iter_rows()}
    rows = [{"rule": rule} | {other: f"{found[rule, other]:.2f}" for other in _SHOWN} for rule in _SHOWN]
    return markdown_table(pl.DataFrame(rows))


def _causal(causal: pl.DataFrame) -> str:
    rows: dict[str, dict[str, str]] = {}
    for row in causal.to_dicts():
        shown = f"{row['mean']:.2f}, {_cell(row)}"
        rows.setdefault(row["rule"], {"rule": row["rule"]})[row["world"]] = shown
    return markdown_table(pl.DataFrame(list(rows.values())))


def _cell(row: Mapping[str, float | None] | None, digits: int = 2) -> str:
    if row is None or row["value"] is None:
        return "-"
    value, low, high = (f"{row[key]:+.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]{'*' if _holds(row) else ''}"
