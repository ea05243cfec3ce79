"""What rounds tell people: a table, a picture, and whether rounds after the first helped."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.config import Config
from pipeline.evaluation.metrics import IN_DOMAIN, OUT_OF_DOMAIN, Estimate
from pipeline.markdown import markdown_table
from pipeline.plots import figure_png
from pipeline.predictions.contenders import DISTILLED, UNTOUCHED
from pipeline.rounds.drift import SIGNALS, estimates, graded, same_questions
from pipeline.rounds.record import last_promoted, read_drift, read_rounds, run_of
from pipeline.rounds.run import settings_of
from pipeline.store.store import Run

REPORT_FILE: Final = "rounds.md"
PLOT_FILE: Final = "rounds.png"
_SHOWN: Final = {
    "in-domain, %": (IN_DOMAIN, "avg_at_k", 100, 1),
    "out of domain, %": (OUT_OF_DOMAIN, "avg_at_k", 100, 1),
    "ECE, votes": (IN_DOMAIN, "ece_vote", 1, 3),
    "ECE, options": (IN_DOMAIN, "ece_option", 1, 3),
}
"""Columns of the table: test, metric, scale and decimals."""
_DRIFT: Final = {"kept_answers": "kept answers", "neuron_overlap": "neuron overlap", "mui": "MUI"}
"""Columns of the table: signals of the gate."""
_Figures = Mapping[tuple[str, str], Estimate]


def write_report(config: Config, rounds: Run) -> str:
    """Write ``rounds.md`` and ``rounds.png`` into the folder of the rounds and return the former's text."""
    judged, figures = read_rounds(rounds), _figures(config, rounds)
    other = judged.filter(pl.col("settings") != settings_of(config))["round"].to_list()
    parts = [
        f"# Rounds of {rounds.name}",
        markdown_table(_table(judged, read_drift(rounds), figures, config)),
        _does_it_help(judged, figures, config),
        "\n".join(f"- Round {number}: {verdict}" for number, verdict in judged.select("round", "verdict").iter_rows()),
    ]
    if other:
        parts.append(f"Made with other settings than now, and left as they are: {', '.join(map(str, other))}.")
    text = "\n\n".join(parts) + "\n"
    try:
        (rounds.folder / PLOT_FILE).write_bytes(plot(judged, read_drift(rounds), figures, config))
        (rounds.folder / REPORT_FILE).write_text(text, encoding="utf-8")
    except OSError as error:
        raise rounds.store.unwritable(error) from error
    return text


def plot(judged: pl.DataFrame, drift: pl.DataFrame, figures: Mapping[int, _Figures], config: Config) -> bytes:
    """Return accuracy, calibration, echo and drift over the rounds as PNG; a cross marks a model that was refused."""
    figure = Figure(figsize=(10, 6), layout="constrained")
    (accuracy, calibration), (echo, strains) = figure.subplots(2, 2)
    refused = judged.filter(~pl.col("promoted"))["round"].to_list()
    for axes, names in ((accuracy, list(_SHOWN)[:2]), (calibration, list(_SHOWN)[2:])):
        for name, color in zip(names, ("#D55E00", "#0072B2"), strict=True):
            _line(axes, name, figures, color, config)
    accuracy.set(title="accuracy (Avg@k)", ylabel="%")
    calibration.set(title="calibration error, in domain", ylabel="ECE")
    echo.plot(judged["round"], judged["answer_echo"], "o-", color="#D55E00", label="examples of the teacher")
    echo.plot(judged["round"], judged["answer_echo_by_chance"], "--", color="0.6", label="by chance")
    echo.set(title="answer echo", ylabel="share")
    strains.axhline(1, color="0.6", linewidth=1)
    for name in (name for name, signal in SIGNALS.items() if not signal.reads_gold):
        rows = drift.filter(signal=name)
        strains.plot(rows["round"], rows["strain"].clip(upper_bound=2), ".-", linewidth=1, label=name)
    strains.set(title="drift from the round's base, of the way to its limit", ylabel="strain (at most 2 shown)")
    strains.legend(frameon=False, fontsize="x-small", ncols=2)
    for axes in (accuracy, calibration, echo, strains):
        axes.set_xlabel("round")
        axes.xaxis.get_major_locator().set_params(integer=True)
        for number in refused:
            axes.axvline(number, color="#CC79A7", linestyle=":", linewidth=1)
    for axes in (accuracy, calibration, echo):
        axes.legend(frameon=False, fontsize="small")
    figure.suptitle("dotted: refused" if refused else "all promoted")
    return figure_png(figure)


def _figures(config: Config, rounds: Run) -> dict[int, _Figures]:
    """Return what the evaluations found of each round's model, and as 0 of the first round's base.

    Left out are those of other tests than the first round's, and of rounds that other code has evaluated.
    """
    found: dict[int, _Figures] = {}
    first = run_of(rounds, 1)
    for number in read_rounds(rounds)["round"]:
        run = run_of(rounds, number)
        if graded(run) is not None and (number == 1 or same_questions(run, first)):
            found |= {0: estimates(run, UNTOUCHED, config)} if number == 1 else {}
            found[number] = estimates(run, DISTILLED, config)
    return found


def _table(judged: pl.DataFrame, drift: pl.DataFrame, figures: Mapping[int, _Figures], config: Config) -> pl.DataFrame:
    rows = []
    for row in [{"round": 0, "base": None}, *judged.iter_rows(named=True)]:
        number, base, own = row["round"], row["base"], figures.get(row["round"], {})
        cells: dict[str, Any] = {
            "round": f"{number}" if number else "0 (first model)",
            "from": "-" if base is None else base,
        }
        for name, (split, metric, scale, decimals) in _SHOWN.items():
            value = own.get((split, metric))
            cells[name] = "-" if value is None else _shown(value.draws, scale, decimals, config)
        before = {} if base is None else figures.get(base, {})
        change = _gap(own, before, IN_DOMAIN)
        cells["change in domain"] = "-" if change is None else _shown(change, 100, 1, config, signed=True)
        signals = dict(drift.filter(round=number).select("signal", "after").iter_rows())
        cells |= {title: f"{signals[name]:.3f}" if name in signals else "-" for name, title in _DRIFT.items()}
        echo, chance = row.get("answer_echo"), row.get("answer_echo_by_chance")
        cells["echo (by chance)"] = "-" if echo is None or chance is None else f"{echo:.3f} ({chance:.3f})"
        cells["verdict"] = "" if base is None else "promoted" if row["promoted"] else "refused"
        rows.append(cells)
    return pl.DataFrame(rows, schema_overrides={"from": pl.String}, strict=False)


def _does_it_help(judged: pl.DataFrame, figures: Mapping[int, _Figures], config: Config) -> str:
    """Return whether the last model that was promoted is better than the first round's."""
    last = last_promoted(judged)
    if judged.height < 2 or not last:
        return "Whether rounds help cannot be said of fewer than two, or without a model that was promoted."
    first = judged.filter("promoted")["round"][0]
    if last == first:
        return f"Rounds after round {first} did not help: none of their models was promoted."
    gaps = {split: _gap(figures.get(last, {}), figures.get(first, {}), split) for split in (IN_DOMAIN, OUT_OF_DOMAIN)}
    inside, outside = gaps[IN_DOMAIN], gaps[OUT_OF_DOMAIN]
    if inside is None:
        return "Whether rounds help cannot be said without a test in domain that all were asked."
    told = _words(inside, config, "help", "harm", "are not shown to help")
    cost = "" if outside is None else _words(outside, config, " and help", " and cost", "")
    kept = "" if outside is None else f", out of domain {_shown(outside, 100, 1, config, signed=True)}"
    gained = _shown(inside, 100, 1, config, signed=True)
    return (
        f"Rounds after round {first} {told} in domain{cost and f'{cost} out of domain'}: the model of round {last} "
        f"against that of round {first} is {gained} points in domain{kept}. Part of it is more training: the fair "
        "rival is one round of as many steps (distilled_adapter.steps). The intervals do not cover the randomness of "
        "training."
    )


def _words(draws: Any, config: Config, better: str, worse: str, neither: str) -> str:
    low, high = _interval(draws, config)
    return better if low > 0 else worse if high < 0 else neither


def _gap(own: _Figures, other: _Figures, split: str) -> Any:
    key = (split, "avg_at_k")
    return own[key].draws - other[key].draws if key in own and key in other else None


def _interval(draws: Any, config: Config) -> tuple[float, float]:
    tail = (1 - config.evaluation.confidence_level) / 2
    low, high = np.nanquantile(draws[1:], [tail, 1 - tail])
    return float(low), float(high)


def _shown(draws: Any, scale: float, decimals: int, config: Config, signed: bool = False) -> str:
    sign = "+" if signed else ""
    value, low, high = (f"{scale * x:{sign}.{decimals}f}" for x in (draws[0], *_interval(draws, config)))
    return f"{value} [{low}, {high}]"


def _line(axes: Axes, name: str, figures: Mapping[int, _Figures], color: str, config: Config) -> None:
    split, metric, scale, _ = _SHOWN[name]
    points = {number: scale * own[split, metric].draws for number, own in figures.items() if (split, metric) in own}
    if points:
        values = [draws[0] for draws in points.values()]
        ends = np.array([_interval(draws, config) for draws in points.values()]).T
        bars = np.abs(ends - np.array(values))
        axes.errorbar(list(points), values, yerr=bars, fmt="o-", color=color, capsize=2, label=name)
