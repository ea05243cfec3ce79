"""How signals and what gold says go together: alone, given simpler signals, between seeds, and learnt elsewhere."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
import polars as pl
from scipy.stats import rankdata

from benchmarks.signal_tables import GIVEN, OUTCOMES, residuals
from pipeline.seeding import derive_seed

GAINS = ("right", "teacher_gain", "student_gain", "near_gain")
N_RESAMPLES = 400
_ANSWERS = ("vote_share", "entropy", "length", "self_certainty")
_NEURONS = (
    *("neuron_support", "neuron_support_per_token", "neuron_support_residual", "neuron_coverage"),
    *("neuron_agreement", "agreement_beyond_answers", "stem_coverage", "stem_density", "stem_concentration"),
)
_CONTEXTS = ("belief_shift", "confident_shift", "new_answer", "informed_share")
LEARNT = {
    "answers": _ANSWERS,
    "answers, neurons": (*_ANSWERS, *_NEURONS),
    "answers, contexts": (*_ANSWERS, *_CONTEXTS),
    "answers, contexts, neurons": (*_ANSWERS, *_CONTEXTS, *_NEURONS, "steady_shift"),
    "answers, contexts, wrong contexts": (*_ANSWERS, *_CONTEXTS, "shift_by_wrong_context", "shift_over_control"),
    "answers, contexts, gradients": (*_ANSWERS, *_CONTEXTS, "gradient_norm", "near_step_gain", "near_step_cosine"),
}
"""Signals of the combinations that are learnt."""
_RIDGE = 1.0  # in units of the mean squared rank; own choice, the signals are few beside the questions
_FEWEST = 12


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Return Pearson's r; nan where either is constant."""
    x, y = x - x.mean(), y - y.mean()
    norm = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / norm) if norm > 1e-9 * len(x) else float("nan")


def auroc(x: np.ndarray, right: np.ndarray) -> float:
    """Return the chance that a right one has the larger value, ties counting half."""
    n_right = right.sum()
    n_pairs = n_right * (len(right) - n_right)
    return float((rankdata(x)[right > 0].sum() - n_right * (n_right + 1) / 2) / n_pairs) if n_pairs else float("nan")


def measure(x: np.ndarray, outcome: np.ndarray, given: np.ndarray, is_label: bool) -> tuple[float, float]:
    """Return the AUROC (of a label) or Spearman's rho, and the partial rank correlation; rows with nan left out."""
    known = np.isfinite(x) & np.isfinite(outcome) & np.isfinite(given).all(1)
    x, outcome, given = x[known], outcome[known], given[known]
    if len(x) < _FEWEST:
        return float("nan"), float("nan")
    alone = auroc(x, outcome) if is_label else correlation(rankdata(x), rankdata(outcome))
    rest = residuals(np.column_stack([x, outcome]), given)
    return alone, correlation(rest[:, 0], rest[:, 1]) if np.abs(rest[:, 0]).max() > 1e-6 else float("nan")


def arrays(table: pl.DataFrame) -> dict[str, np.ndarray]:
    """Return a table's columns as floats, nan for null; a pseudo-label's correctness only where there is a majority.

    A question that a signal has no value of counts as its last, as no rule would keep it.
    """
    told = table.with_columns(right=pl.when("majority").then("right").cast(pl.Float64))
    told = told.with_columns(pl.col(name).fill_null(pl.col(name).min() - 1) for name in names_of(table))
    columns = [name for name in told.columns if name != "id"]
    return {name: told[name].cast(pl.Float64).fill_null(float("nan")).to_numpy() for name in columns}


def names_of(table: pl.DataFrame) -> list[str]:
    """Return the signals of a table."""
    return [name for name in table.columns if name not in ("id", *OUTCOMES)]


def draws(world: str, n_questions: int, n_seeds: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield seeds and questions: all of them, then resamples, of one seed fewer than there are."""
    yield np.arange(n_seeds), np.arange(n_questions)
    rng = np.random.default_rng(derive_seed(0, "signals", world))
    for _ in range(N_RESAMPLES):
        yield rng.integers(n_seeds, size=max(1, n_seeds - 1)), rng.integers(n_questions, size=n_questions)


def signal_rows(world: str, tables: Sequence[pl.DataFrame]) -> list[dict[str, object]]:
    """Return a row per signal and outcome of a world, from its tables under several seeds."""
    runs, names = [arrays(table) for table in tables], names_of(tables[0])
    found: dict[tuple[str, str], list[np.ndarray]] = {(name, gain): [] for name in names for gain in GAINS}
    for seeds, questions in draws(world, len(tables[0]), len(runs)):
        for name, gain in found:
            each = [
                measure(run[name][questions], run[gain][questions], _given(run)[questions], gain == "right")
                for run in (runs[seed] for seed in seeds)
            ]
            found[name, gain].append(np.mean(each, axis=0))
    rows = []
    for (name, gain), values in found.items():
        whole = np.array(values)
        for kind, column in (("alone", 0), ("partial", 1)):
            rows.append({"world": world, "signal": name, "outcome": gain, "kind": kind, **interval(whole[:, column])})
    return rows + [_stability(world, name, runs) for name in names if len(runs) > 1]


def _given(run: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.column_stack([run[name] for name in GIVEN])


def _stability(world: str, name: str, runs: Sequence[Mapping[str, np.ndarray]]) -> dict[str, object]:
    """Return the mean rank correlation of a signal between two seeds, with an interval over questions."""
    values = []
    for _, questions in draws(world, len(runs[0][name]), len(runs)):
        pairs = []
        for one, other in combinations(runs, 2):
            x, y = one[name][questions], other[name][questions]
            known = np.isfinite(x) & np.isfinite(y)
            pairs.append(correlation(rankdata(x[known]), rankdata(y[known])))
        values.append(np.mean(pairs))
    return {"world": world, "signal": name, "outcome": "other seed", "kind": "stability", **interval(np.array(values))}


def interval(values: np.ndarray) -> dict[str, float]:
    """Return the first value and the 95 % percentile interval of the others."""
    others = values[1:][np.isfinite(values[1:])]
    low, high = np.quantile(others, [0.025, 0.975]) if len(others) else (np.nan, np.nan)
    return {"value": float(values[0]), "low": float(low), "high": float(high)}


def learnt_rows(fitted_on: str, tables: Mapping[str, Sequence[pl.DataFrame]]) -> list[dict[str, object]]:
    """Return how combinations fitted on a world order the teacher's gain on the others, and what parts add there."""
    rows = []
    fits = {name: _fit(tables[fitted_on], signals) for name, signals in LEARNT.items()}
    for world in tables.keys() - {fitted_on}:
        runs = [arrays(table) for table in tables[world]]
        scores = {name: [_features(run, LEARNT[name]) @ fit for run in runs] for name, fit in fits.items()}
        values = {name: [] for name in scores}
        for seeds, questions in draws(world, len(tables[world][0]), len(runs)):
            for name, each in scores.items():
                rhos = [
                    measure(each[s][questions], runs[s]["teacher_gain"][questions], _none(questions), False)[0]
                    for s in seeds
                ]
                values[name].append(np.mean(rhos))
        whole = {name: np.array(each) for name, each in values.items()}
        rows += [{"world": world, "signals": name, "over": None, **interval(each)} for name, each in whole.items()]
        for name, base in (
            ("answers, neurons", "answers"),
            *((name, "answers, contexts") for name in LEARNT if name.startswith("answers, contexts, ")),
        ):
            rows.append({"world": world, "signals": name, "over": base, **interval(whole[name] - whole[base])})
    return sorted(rows, key=lambda row: str(row["world"]))


def _none(questions: np.ndarray) -> np.ndarray:
    return np.zeros((len(questions), 1))


def _features(run: Mapping[str, np.ndarray], signals: Sequence[str]) -> np.ndarray:
    """Return ranks from -1 to 1 of each signal, 0 where it has no value: ``[n, signals]``."""
    columns = []
    for name in signals:
        known, ranks = np.isfinite(run[name]), np.zeros(len(run[name]))
        ranks[known] = 2 * (rankdata(run[name][known]) - 0.5) / known.sum() - 1
        columns.append(ranks)
    return np.column_stack(columns)


def _fit(tables: Sequence[pl.DataFrame], signals: Sequence[str]) -> np.ndarray:
    """Return the weights of a ridge regression of the centred teacher's gain on the features."""
    runs = [arrays(table) for table in tables]
    known = [np.isfinite(run["teacher_gain"]) for run in runs]
    features = np.vstack([_features(run, signals)[rows] for run, rows in zip(runs, known, strict=True)])
    gains = np.concatenate([run["teacher_gain"][rows] for run, rows in zip(runs, known, strict=True)])
    penalty = _RIDGE * len(features) ** 0.5 * np.eye(len(signals))
    return np.linalg.solve(features.T @ features + penalty, features.T @ (gains - gains.mean()))
