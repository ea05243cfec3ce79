"""From the cells of a comparison to its tables: means over worlds and seeds, with intervals.

Intervals of accuracies are 95 % percentile bootstrap intervals: within each world seeds are drawn with replacement, one
fewer than there are, and questions with all their samples; the same draws for both sides of a difference. Worlds are
not resampled: the figures are about these. All other intervals are Student's t over the runs of all worlds and seeds.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import stats

from pipeline.evaluation.calibration import N_BINS, bin_index, expected_calibration_error
from pipeline.evaluation.confidence import option_confidence, vote_confidence
from pipeline.evaluation.metrics import IN_DOMAIN, OUT_OF_DOMAIN
from pipeline.markdown import markdown_table
from pipeline.predictions.contenders import UNTOUCHED

Cells = Mapping[tuple[int, int], Path]
Floats = npt.NDArray[np.float64]
N_RESAMPLES = 2_000
DEFAULT, RANDOM, PUBLISHED = (
    "confident_shift + stem_overlap",
    "random + stem_overlap",
    "neuron_support + neuron_overlap",
)
CONFIDENTLY = 0.8
"""Vote share from which on a wrong majority counts as confidently wrong."""


class Study:
    """Answers of all arms on all worlds and seeds."""

    def __init__(self, cells: Cells, arms: Sequence[str]) -> None:
        self.cells, self.arms = cells, list(arms)
        self.worlds = sorted({world for world, _ in cells})
        self._answers: dict[tuple[str, int, int], pl.DataFrame] = {}

    def table(self, cell: tuple[int, int], name: str) -> pl.DataFrame:
        """Return what a cell kept under a name."""
        return pl.read_parquet(self.cells[cell] / f"{name.replace(' ', '-').replace(':', '')}.parquet")

    def mean(self, name: str, figure: Callable[[pl.DataFrame], float | None]) -> dict[str, float] | None:
        """Return the mean over the cells of a figure of their tables with Student's t interval; None without any."""
        return mean_interval([figure(self.table(cell, name)) for cell in self.cells])

    def accuracy(self, arm: str, split: str) -> dict[int, Floats]:
        """Return the share of right samples per world: seeds by questions ``[S, n]``, questions sorted by id."""
        rows: dict[int, list[Floats]] = {world: [] for world in self.worlds}
        for world, seed in self.cells:
            answers = self.table((world, seed), arm).filter(pl.col("split") == split)
            right = answers.group_by("id").agg(pl.col("correct").mean()).sort("id")
            rows[world].append(right["correct"].to_numpy())
        return {world: np.stack(seeds) for world, seeds in rows.items()}

    def interval(self, arm: str, split: str, against: str | None = UNTOUCHED) -> dict[str, float]:
        """Return an arm's accuracy, or its difference from another arm, in points with its interval."""
        values = self.accuracy(arm, split)
        if against:
            other = self.accuracy(against, split)
            values = {world: values[world] - other[world] for world in values}
        rng = np.random.default_rng(0)
        draws = np.mean([_resample(table, rng) for table in values.values()], axis=0)
        low, high = np.quantile(draws, [0.025, 0.975])
        mean = np.mean([table.mean() for table in values.values()])
        return {"mean": 100 * float(mean), "low": 100 * float(low), "high": 100 * float(high)}

    def calibration(self, arm: str, against: str | None = None, n_samples: int = 4) -> dict[str, float] | None:
        """Return the in-domain calibration error by the option probability, over as many samples for all arms.

        With ``against`` it is the difference from another arm's, paired by world and seed.
        """

        def error(cell: tuple[int, int], name: str) -> float:
            table = option_confidence(_test(self.table(cell, name)).filter(pl.col("sample") < n_samples))
            return expected_calibration_error(table["confidence"], table["correct"])

        return mean_interval([error(cell, arm) - (error(cell, against) if against else 0.0) for cell in self.cells])

    def arm(self, name: str) -> dict[str, Any]:
        """Return the figures of one arm."""
        return {
            "arm": name,
            "in_domain": self.interval(name, IN_DOMAIN, None),
            "gain": self.interval(name, IN_DOMAIN),
            "out_of_domain": self.interval(name, OUT_OF_DOMAIN),
            "ece": self.calibration(name),
            "ece_change": self.calibration(name, UNTOUCHED),
        }

    def report(self) -> dict[str, Any]:
        """Return everything."""
        return {
            "worlds": self.worlds,
            "seeds": sorted({seed for _, seed in self.cells}),
            "n in-domain": {world: table.shape[1] for world, table in self.accuracy(UNTOUCHED, IN_DOMAIN).items()},
            "world": self.world(),
            "contexts": self._contexts(),
            "selections": self._selections(),
            "arms": [self.arm(name) for name in (UNTOUCHED, *self.arms)],
            "default against": self._headline(),
        }

    def world(self) -> dict[str, Any]:
        """Return what makes a comparison on these worlds mean something (W1 to W6), the arms permitting."""
        sft = [name for name in self.arms if name.startswith("SFT")]
        oracles = [name for name in self.arms if name.startswith("oracle")]
        by = {"vote share": vote_confidence, "option probability": option_confidence}
        figures: dict[str, Any] = {
            "W1 untouched accuracy": self.interval(UNTOUCHED, IN_DOMAIN, None),
            "W1 pool majorities right": self.mean("pool labels", lambda t: t["correct"].mean()),
            "W1 pool confidently wrong": self.mean("pool labels", _confidently_wrong),
            "W3 teacher with examples of the same subject": self.mean(
                "contexts same subject", lambda t: t["accuracy"][0]
            ),
            "W5 share between .1 and .9": {
                name: self.mean(UNTOUCHED, lambda t, f=f: _undecided(f(_test(t)))) for name, f in by.items()
            },
            "W5 bins with points": {
                name: self.mean(UNTOUCHED, lambda t, f=f: _filled(f(_test(t)))) for name, f in by.items()
            },
            "W5 bins": N_BINS,
        }
        if sft:
            gains = {name: self.interval(name, IN_DOMAIN) for name in sft}
            figures["W2 best gain of SFT on votes"] = max(gains.values(), key=lambda gain: gain["mean"])
        losses = {name: self.interval(name, OUT_OF_DOMAIN) for name in self.arms}
        worst = min(losses, key=lambda name: losses[name]["mean"])
        figures["W6 largest loss out of domain"] = {"arm": worst, **losses[worst]}
        if oracles and RANDOM in self.arms:
            gains = {name: self.interval(name, IN_DOMAIN, RANDOM) for name in oracles}
            best = max(gains, key=lambda name: gains[name]["mean"])
            figures["W4 best oracle against random"] = {"arm": best, **gains[best]}
        return figures

    def _headline(self) -> dict[str, Any]:
        """Return how far the default is above random selection, the published pair and the best rate of SFT."""
        if DEFAULT not in self.arms:
            return {}
        sft = {name: self.interval(name, IN_DOMAIN)["mean"] for name in self.arms if name.startswith("SFT")}
        best = max(sft, key=lambda name: sft[name], default="")
        rivals = [name for name in (RANDOM, PUBLISHED, best) if name in self.arms]
        return {
            name: {
                **{split: self.interval(DEFAULT, split, name) for split in (IN_DOMAIN, OUT_OF_DOMAIN)},
                "ece": self.calibration(DEFAULT, name),
            }
            for name in rivals
        }

    def _contexts(self) -> list[dict[str, Any]]:
        names = sorted(path.stem for path in next(iter(self.cells.values())).glob("contexts-*.parquet"))
        rows = []
        for name in names:
            builder = name.removeprefix("contexts-").replace("-", " ")
            figures = ("same_subject", "echo", "chance", "accuracy")
            rows.append({"builder": builder} | {f: self.mean(name, lambda t, f=f: t[f][0]) for f in figures})
        return rows

    def _selections(self) -> list[dict[str, Any]]:
        tables = pl.concat([self.table(cell, "selections") for cell in self.cells])
        return [
            {"rule": rule} | {name: mean_interval(table[name].to_list()) for name in table.columns if name != "rule"}
            for (rule,), table in tables.group_by("rule", maintain_order=True)
        ]


def mean_interval(values: Sequence[float | None]) -> dict[str, float] | None:
    """Return the mean of the values that there are with Student's t interval at 95 %."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    mean = float(np.mean(known))
    half = float(stats.t.ppf(0.975, len(known) - 1) * stats.sem(known)) if len(known) > 1 else 0.0
    return {"mean": mean, "low": mean - half, "high": mean + half, "runs": len(known)}


def _resample(values: Floats, rng: np.random.Generator) -> Floats:
    """Return the mean of each resample of seeds and questions of ``values [S, n]``, ``[N_RESAMPLES]``."""
    n_seeds, n = values.shape
    n_drawn = max(1, n_seeds - 1)  # as many as there are would understate the variance between few seeds
    seeds = rng.integers(n_seeds, size=(N_RESAMPLES, n_drawn))
    weights = np.stack([np.bincount(row, minlength=n_seeds) for row in seeds]) / n_drawn
    questions = rng.integers(n, size=(N_RESAMPLES, n))
    counts = np.stack([np.bincount(row, minlength=n) for row in questions]) / n
    return np.einsum("rs,sn,rn->r", weights, values, counts, optimize=True)


def _test(answers: pl.DataFrame) -> pl.DataFrame:
    return answers.filter(pl.col("split") == IN_DOMAIN)


def _confidently_wrong(labels: pl.DataFrame) -> float:
    wrong = (pl.col("state") == "majority") & ~pl.col("correct") & (pl.col("vote_share") >= CONFIDENTLY)
    return float(labels.select(wrong.mean()).item())


def _undecided(table: pl.DataFrame) -> float:
    return float(table.select(pl.col("confidence").is_between(0.1, 0.9, closed="none").mean()).item())


def _filled(table: pl.DataFrame) -> float:
    return float(len(np.unique(bin_index(table["confidence"].to_numpy()))))


def markdown(report: Mapping[str, Any]) -> str:
    """Return the tables of a report for people."""
    accuracy = {row["arm"]: row for row in report["arms"]}
    world = "\n".join(f"- {name}: {_plain(value)}" for name, value in report["world"].items())
    contexts = [
        {
            "builder": row["builder"],
            "same subject, %": percent(row["same_subject"]),
            "echo, %": percent(row["echo"]),
            "by chance, %": percent(row["chance"]),
            "teacher right, %": percent(row["accuracy"]),
            "distilled, %": _accuracy(accuracy.get(f"random + {row['builder']}")),
        }
        for row in report["contexts"]
    ]
    rules = [
        {
            "rule": row["rule"],
            "rank correlation with length": "-" if row["length"] is None else f"{row['length']['mean']:+.2f}",
            "pseudo-label right, %": percent(row["label_right"]),
            "distilled, %": _accuracy(accuracy.get(f"{row['rule']} + stem_overlap")),
        }
        for row in report["selections"]
    ]
    arms = [
        {
            "arm": row["arm"],
            "in-domain, %": _accuracy(row),
            "gain": shown(row["gain"]),
            "out of domain": shown(row["out_of_domain"]),
            "ECE": f"{row['ece']['mean']:.3f}",
        }
        for row in report["arms"]
    ]
    against = "\n".join(
        f"- default against {name}: in-domain {shown(row[IN_DOMAIN])}, out of domain {shown(row[OUT_OF_DOMAIN])}, "
        f"ECE {row['ece']['mean']:+.3f} [{row['ece']['low']:+.3f}, {row['ece']['high']:+.3f}]"
        for name, row in report["default against"].items()
    )
    tables = [markdown_table(pl.DataFrame(rows)) for rows in (contexts, rules, arms)]
    return "\n\n".join([world, *tables, against]) + "\n"


def shown(figure: Mapping[str, float]) -> str:
    """Return a difference in points with its interval."""
    return f"{figure['mean']:+.1f} [{figure['low']:+.1f}, {figure['high']:+.1f}]"


def percent(figure: Mapping[str, float] | None) -> str:
    """Return a share in percent with its interval."""
    if figure is None:
        return "-"
    mean, low, high = (100 * figure[name] for name in ("mean", "low", "high"))
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def _accuracy(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    figure = row["in_domain"]
    return f"{figure['mean']:.1f} [{figure['low']:.1f}, {figure['high']:.1f}]"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(part)}" for name, part in value.items())
    return f"{value:.3g}" if isinstance(value, float) else str(value)
