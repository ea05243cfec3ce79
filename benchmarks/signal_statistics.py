"""How signals and what gold says go together: alone, given simpler signals, between seeds, and learnt elsewhere.

Hierarchical bootstrap as of a study (``pipeline.study.figures``): seeds, one fewer than there are, and questions, the
same under every seed. Worlds are not resampled: figures are about these.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
import polars as pl
from scipy.stats import false_discovery_control, norm, rankdata

from benchmarks.signal_tables import CONTROLLED, LEARNABILITY, OUTCOMES
from pipeline.seeding import derive_seed

GIVEN = ("vote_share", "entropy", "length")
"""What a signal has to go beyond."""
N_RESAMPLES = 2_000
FAMILIES = {
    "answers": ("vote_share", "disagreement", "entropy", "length", "self_certainty"),
    "neurons": (
        *("neuron_support", "neuron_support_per_token", "neuron_support_residual", "neuron_coverage"),
        *("neuron_agreement", "stem_coverage", "stem_density", "stem_concentration"),
    ),
    "contexts": ("belief_shift", "confident_shift", "new_answer", "informed_share"),
    "contexts and neurons": ("steady_shift",),
    "wrong contexts": CONTROLLED,
    "gradients": LEARNABILITY,
}
"""Signals by what they are read from."""
LEARNT = {
    ("answers",): None,
    ("answers", "neurons"): ("answers",),
    ("answers", "contexts"): ("answers",),
    **{
        ("answers", "contexts", more): ("answers", "contexts")
        for more in ("neurons", "contexts and neurons", "wrong contexts", "gradients")
    },
}
"""Families whose signals are combined, and those over which they are to add something."""
ALL_WORLDS = "all worlds"
_RIDGE = 1.0  # in units of the features' squared sum per root of the rows; own choice, tuned on nothing


def dense(values: np.ndarray) -> np.ndarray:
    """Return the place of each value among the distinct ones of its column: what ranks in all resamples come from."""
    return rankdata(values, method="dense", axis=0).astype(np.int64) - 1


def midranks(places: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the ranks ``[n, m]``, ties sharing theirs, where row i stands ``counts[i]`` times."""
    m, width = places.shape[1], places.max() + 1
    cells = places + width * np.arange(m)
    sizes = np.bincount(cells.ravel(), np.repeat(counts, m), width * m).reshape(m, width)
    return (sizes.cumsum(1) - (sizes - 1) / 2).ravel()[cells]


def associations(places: np.ndarray, counts: np.ndarray, n_given: int, *, is_label: bool = False) -> np.ndarray:
    """Return what each signal has to do with an outcome, alone and given others: ``[2, m]``.

    Alone: Spearman's rho; of a label the AUROC, the chance that a right one has the larger value, ties counting half.
    Given others: the correlation of the residuals of ranks by least squares on the others' ranks; nan where a signal
    follows from them but for a hundredth of its variance.

    Args:
        places: ``dense`` of m signals, the outcome, and what is given.
        counts: How often each row stands in the resample.
        n_given: Columns that are given.
        is_label: Whether the outcome is one of two.
    """
    ranks, weight = midranks(places, counts), np.sqrt(counts)[:, None]
    m = places.shape[1] - n_given - 1
    design = np.column_stack([np.ones(len(ranks)), ranks[:, m + 1 :]])
    rest = ranks[:, : m + 1] - design @ np.linalg.lstsq(design * weight, ranks[:, : m + 1] * weight, rcond=None)[0]
    centred = ranks[:, : m + 1] - np.average(ranks[:, : m + 1], 0, counts)
    rest[:, counts @ rest**2 < 0.01 * (counts @ centred**2)] = 0
    if is_label:
        right = counts * (places[:, m] > 0)
        gap = right @ ranks[:, :m] / right.sum() - (counts - right) @ ranks[:, :m] / (counts - right).sum()
        alone = 0.5 + gap / counts.sum()
    else:
        alone = correlations(ranks[:, :m], ranks[:, [m]], counts)
    return np.stack([alone, correlations(rest[:, :m], rest[:, [m]], counts)])


def correlations(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return Pearson's r of the columns of ``x`` and ``y``, of ranks, each with its own: ``[m]``; nan for constants."""
    x, y = x - np.average(x, 0, counts), y - np.average(y, 0, counts)
    norms = np.sqrt((counts @ x**2) * (counts @ y**2))
    return np.where(norms > 1e-6 * counts.sum(), counts @ (x * y) / np.maximum(norms, 1e-300), np.nan)


def resamples(world: str, n_questions: int, n_seeds: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield seeds, and how often each question counts: all of them once, then resamples."""
    yield np.arange(n_seeds), np.ones(n_questions)
    rng = np.random.default_rng(derive_seed(0, "signals", world))
    for _ in range(N_RESAMPLES):
        counts = rng.multinomial(n_questions, np.full(n_questions, 1 / n_questions))
        yield rng.integers(n_seeds, size=max(1, n_seeds - 1)), counts.astype(float)


def figure(draws: np.ndarray, null: float = 0.0) -> dict[str, float]:
    """Return the first value, the 95 % percentile interval of the others, and a two-sided p-value.

    That is of the normal distribution with the others' standard deviation: a share of resamples is never small enough
    for one signal among many.
    """
    others = draws[1:][np.isfinite(draws[1:])]
    if not np.isfinite(draws[0]) or not len(others):
        return dict.fromkeys(("value", "low", "high", "p"), float("nan"))
    low, high = np.quantile(others, [0.025, 0.975])
    deviation = others.std(ddof=1)
    p = 2 * norm.sf(abs(draws[0] - null) / deviation) if deviation else float("nan")
    return {"value": draws[0], "low": low, "high": high, "p": p}


def signals_of(table: pl.DataFrame) -> list[str]:
    """Return the signals of a table."""
    return [name for name in table.columns if name not in ("id", *OUTCOMES)]


def signal_rows(tables: Mapping[str, Sequence[pl.DataFrame]], worlds: Sequence[str]) -> list[dict[str, object]]:
    """Return a row per world, signal, outcome and kind of association, and of its mean over ``worlds``.

    Kinds are ``alone`` (AUROC where the outcome is ``right``, else Spearman's rho), ``partial`` (given ``GIVEN``) and
    ``stability`` (rho with itself, mean over pairs of seeds, which has no p-value).

    Args:
        tables: Of ``signal_table``, one per seed, by the name of their world.
        worlds: Those of the study.
    """
    names, rows = signals_of(tables[worlds[0]][0]), []
    draws = {world: _signal_draws(world, each, names) for world, each in tables.items()}
    shared = set.intersection(*(set(draws[world]) for world in worlds))
    draws[ALL_WORLDS] = {key: np.mean([draws[world][key] for world in worlds], axis=0) for key in shared}
    for world, found in draws.items():
        for (outcome, kind), values in found.items():
            null = 0.5 if (outcome, kind) == ("right", "alone") else 0.0
            for column, name in enumerate(names):
                row = {"world": world, "signal": name, "outcome": outcome, "kind": kind}
                row |= figure(values[:, column], null)
                rows.append(row | ({"p": None} if kind == "stability" else {}))
    return rows


def _signal_draws(
    world: str, tables: Sequence[pl.DataFrame], names: Sequence[str]
) -> dict[tuple[str, str], np.ndarray]:
    """Return of each outcome and kind the value of each signal in each resample: ``[1 + N_RESAMPLES, m]``."""
    runs = [_arrays(table, [*names, *GIVEN]) for table in tables]
    found = {}
    for name in OUTCOMES:
        drawn = _draws(world, tables, runs, name, len(GIVEN))
        if drawn is not None:
            found[name, "alone"], found[name, "partial"] = drawn
    if len(runs) > 1:
        places = [dense(run[:, : -len(GIVEN)]) for run in runs]
        drawn = [_stability(places, counts) for _, counts in resamples(world, len(tables[0]), 1)]
        found["other seed", "stability"] = np.stack(drawn)
    return found


def _draws(
    world: str, tables: Sequence[pl.DataFrame], runs: Sequence[np.ndarray], outcome: str, n_given: int
) -> np.ndarray | None:
    """Return the associations of an outcome, mean over seeds, in each resample: ``[2, 1 + N_RESAMPLES, m]``.

    Args:
        world: Its name, which all resamples of it are drawn by.
        tables: What holds the outcome, one per seed.
        runs: ``[n, m + n_given]`` of each seed.
        outcome: Its name; none is returned where it was not looked at.
        n_given: Columns that are given.
    """
    seeds = []
    for table, run in zip(tables, runs, strict=True):
        values = table[outcome].to_numpy()
        known, m = np.isfinite(values), run.shape[1] - n_given
        seeds.append((known, np.column_stack([run[:, :m], values, run[:, m:]])[known]))
    if not all(known.any() for known, _ in seeds):
        return None
    prepared = [(known, dense(values)) for known, values in seeds]
    whole = []
    for drawn, counts in resamples(world, len(tables[0]), len(tables)):
        each = {
            s: associations(prepared[s][1], counts[prepared[s][0]], n_given, is_label=outcome == "right")
            for s in set(drawn.tolist())
        }
        whole.append(np.mean([each[s] for s in drawn.tolist()], axis=0))
    return np.stack(whole, axis=1)


def _stability(places: Sequence[np.ndarray], counts: np.ndarray) -> np.ndarray:
    """Return each signal's rank correlation between two seeds, mean over all pairs: ``[m]``."""
    ranks = [midranks(each, counts) for each in places]
    return np.mean([correlations(one, other, counts) for one, other in combinations(ranks, 2)], axis=0)


def _arrays(table: pl.DataFrame, names: Sequence[str], *, scaled: bool = False) -> np.ndarray:
    """Return signals ``[n, m]``, or their ranks from -1 to 1.

    A question that a signal has no value of counts as its last, as no rule would keep it.
    """
    values = np.column_stack([table[name].fill_null((table[name].min() or 0) - 1).to_numpy() for name in names])
    return (2 * rankdata(values, axis=0) - 1) / len(values) - 1 if scaled else values


def learnt_rows(tables: Mapping[str, Sequence[pl.DataFrame]], worlds: Sequence[str]) -> list[dict[str, object]]:
    """Return how combinations learnt on all other ``worlds`` order outcomes on each, and what families add there.

    The value is Spearman's rho (of a label the AUROC) of the outcome and the combination; with ``over``, how much
    larger it is than that of the combination without a family, with a p-value. What is learnt is not resampled.
    """
    features = {
        world: [_arrays(table, _names(FAMILIES), scaled=True) for table in each] for world, each in tables.items()
    }
    rows: list[dict[str, object]] = []
    for outcome in ("right", "teacher_gain"):
        values = {world: [table[outcome].to_numpy() for table in each] for world, each in tables.items()}
        draws = {}
        for world, own in features.items():
            others = [other for other in worlds if other != world]
            if others and np.isfinite(values[world]).any():
                x, y = (np.concatenate([each for other in others for each in of[other]]) for of in (features, values))
                weights = np.stack([_fit(x, y, families) for families in LEARNT], axis=1)
                draws[world] = _draws(world, tables[world], [each @ weights for each in own], outcome, 0)[0]
        if study := [draws[world] for world in worlds if world in draws]:
            draws[ALL_WORLDS] = np.mean(study, axis=0)
        for world, found in draws.items():
            for column, (families, base) in enumerate(LEARNT.items()):
                row = {"world": world, "outcome": outcome, "signals": ", ".join(families)}
                if world != ALL_WORLDS and any(tables[world][0][name].is_null().all() for name in _names(families)):
                    continue  # not read of this world
                rows.append(row | {"over": None} | figure(found[:, column]) | {"p": None})
                if base:
                    added = found[:, column] - found[:, list(LEARNT).index(base)]
                    rows.append(row | {"over": ", ".join(base)} | figure(added))
    return rows


def _names(families: Iterable[str]) -> list[str]:
    return [name for family in families for name in FAMILIES[family]]


def _fit(x: np.ndarray, y: np.ndarray, families: Sequence[str]) -> np.ndarray:
    """Return the weights ``[m]`` of a ridge regression on the signals ``[n, m]`` of some families, 0 of all others."""
    used, known = np.isin(_names(FAMILIES), _names(families)), np.isfinite(y)
    x, y = x[known] - x[known].mean(0), y[known] - y[known].mean()
    penalty = _RIDGE * len(x) ** 0.5 * np.eye(used.sum())
    weights = np.zeros(len(used))
    weights[used] = np.linalg.solve(x[:, used].T @ x[:, used] + penalty, x[:, used].T @ y)
    return weights


def with_p_adjusted(rows: Sequence[Mapping[str, object]], family: Sequence[str]) -> pl.DataFrame:
    """Return the rows with ``p_adjusted``, for all tests of a family, which depend on one another (as of a study)."""
    table = pl.DataFrame(rows, infer_schema_length=None).with_columns(
        pl.col("value", "low", "high", "p").fill_nan(None)
    )
    tested = table.drop_nulls("p").partition_by(family, maintain_order=True)
    adjusted = [
        part.with_columns(p_adjusted=pl.Series(false_discovery_control(part["p"].to_numpy(), method="by")))
        for part in tested
    ]
    return pl.concat([*adjusted, table.filter(pl.col("p").is_null())], how="diagonal")
