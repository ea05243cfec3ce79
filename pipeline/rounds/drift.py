"""The drift gate: how far a round's model has come from the one before, and whether the next round may start from it.

Every figure is compared on the same questions, with bootstrap intervals over them, and judged by its strain
(``pipeline.strain``): a model is refused where a strain reaches 1. Where an interval reaches over a limit the estimate
decides: to be refused wrongly costs a round, to be promoted wrongly all rounds after. Pinned by
``tests/rounds/test_drift.py``.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from pipeline.beliefs.beliefs import compare_beliefs
from pipeline.config import Config
from pipeline.errors import ArtifactError
from pipeline.evaluation.calibration import Floats
from pipeline.evaluation.measures import Measure, mean
from pipeline.evaluation.metrics import IN_DOMAIN, OUT_OF_DOMAIN, Estimate, bootstrap, estimate
from pipeline.predictions.contenders import DISTILLED, UNTOUCHED
from pipeline.retrieval.sets import NeuronSets, jaccard
from pipeline.rounds.survey import Survey, survey
from pipeline.store.store import Run
from pipeline.strain import Strain, by_factor, by_fall, by_floor, by_itself, by_rise

_MOST: Final = 99.0
"""Largest strain: what is gone altogether has come infinitely far, which no interval holds."""


_N_TOLD: Final = 3
"""Signals that a verdict names, the gravest; all stand in the table."""


class Signal(NamedTuple):
    """How a figure is judged."""

    words: str
    """What it is called in a verdict."""
    setting: str
    """Setting that the limit follows from."""
    strain: Strain
    """Share of the way to the limit, of the figure before, the figure after, and the setting."""
    reads_gold: bool = False
    """Whether it is of the tests' gold answers."""


SIGNALS: Final[Mapping[str, Signal]] = {
    "kept_answers": Signal("majority answers that stayed (share)", "rounds.min_kept_answers", by_floor),
    "belief_shift": Signal("shift of a question's answers (JSD, nats)", "rounds.max_belief_shift", by_itself),
    "vote_share": Signal(
        "agreement within a question (vote share)", "distilled_adapter.guard_agreement_floor", by_floor
    ),
    "answer_variety": Signal(
        "variety of answers over the pool (entropy, nats)", "distilled_adapter.guard_distinct_floor", by_floor
    ),
    "abstention": Signal("responses without an answer (share)", "rounds.max_abstention_rise", by_rise),
    "clipped_share": Signal(
        "responses cut by the length limit (share)", "distilled_adapter.guard_clipped_rise", by_rise
    ),
    "response_tokens": Signal("response length (tokens)", "distilled_adapter.guard_length_factor", by_factor),
    "token_entropy": Signal("entropy of a token (nats)", "distilled_adapter.guard_entropy_factor", by_factor),
    "neuron_overlap": Signal("overlap of neuron sets (Jaccard)", "rounds.min_neuron_overlap", by_floor),
    "mui": Signal("neurons that a question uses (MUI, share)", "rounds.max_mui_factor", by_factor),
    "in_domain_accuracy": Signal("in-domain accuracy", "checks.max_accuracy_loss", by_fall, reads_gold=True),
    "out_of_domain_accuracy": Signal("out-of-domain accuracy", "checks.max_accuracy_loss", by_fall, reads_gold=True),
    "out_of_domain_accuracy_since_start": Signal(
        "out-of-domain accuracy since the first model", "checks.max_accuracy_loss", by_fall, reads_gold=True
    ),
    "in_domain_ece": Signal("in-domain calibration error (votes)", "checks.max_ece_rise", by_rise, reads_gold=True),
}
"""What is compared. ``token_entropy`` is estimated by the mean of - log p of the tokens sampled, exact on average at
temperature 1; ``answer_variety`` counts letters for questions with options, text for open ones: a model that says the
same to everything has none left, however united its votes are."""


def measure_drift(before: Run, after: Run, config: Config) -> list[dict[str, Any]]:
    """Return rows of schema DRIFT, without the round, of what needs no gold: two models' answers to the same pool.

    Questions that only one of the two runs has do not count.
    """
    pool = after.require("pool").read().sort("id")
    pool = pool.join(before.require("pool").read().select("id"), on="id", how="semi", maintain_order="left")
    sides = [survey(run, pool["id"]) for run in (before, after)]
    measures = {
        **{f"before/{name}": measure for name, measure in _own(sides[0]).items()},
        **{f"after/{name}": measure for name, measure in _own(sides[1]).items()},
        **{f"after/{name}": measure for name, measure in _between(pool, *sides).items()},
    }
    used = np.ones(len(pool), dtype=bool)

    def measured(w: Floats) -> dict[str, Floats]:
        return {name: measure(w) for name, measure in measures.items()}

    draws = dict(bootstrap(measured, used, config.evaluation, "pool"))
    found = {
        name: (draws.get(f"before/{name}"), draws[f"after/{name}"]) for name in SIGNALS if f"after/{name}" in draws
    }
    return [row for name, pair in found.items() for row in _row(name, *pair, len(pool), config)]


def measure_gold(run: Run, first: Run, config: Config) -> list[dict[str, Any]]:
    """Return such rows of what the run's evaluation found, which has read the tests' gold answers.

    ``first`` is the run of the first round; where its tests held other questions nothing is compared with it.
    """
    before, after = (estimates(run, label, config) for label in (UNTOUCHED, DISTILLED))
    start = estimates(first, UNTOUCHED, config) if same_questions(run, first) else {}
    pairs = {
        "in_domain_accuracy": (before, IN_DOMAIN, "avg_at_k"),
        "out_of_domain_accuracy": (before, OUT_OF_DOMAIN, "avg_at_k"),
        "out_of_domain_accuracy_since_start": (start, OUT_OF_DOMAIN, "avg_at_k"),
        "in_domain_ece": (before, IN_DOMAIN, "ece_vote"),
    }
    rows: list[dict[str, Any]] = []
    for name, (earlier, split, metric) in pairs.items():
        if (split, metric) in earlier and (split, metric) in after:
            one, other = earlier[split, metric], after[split, metric]
            rows += _row(name, one.draws, other.draws, int(other.used.sum()), config)
    return rows


def graded(run: Run) -> pl.DataFrame | None:
    """Return the graded answers of a run's evaluation; none where that is gone, or of code with other tables."""
    try:
        return run.require("evaluation").read("predictions")
    except ArtifactError:  # a round stands, whatever has become of the code since
        return None


def estimates(run: Run, label: str, config: Config) -> dict[tuple[str, str], Estimate]:
    """Return the figures of a model that the run's evaluation has graded, by test and metric.

    Of the same questions all are taken on the same resamples, whatever run they are of.
    """
    answers = graded(run)
    if answers is None:
        return {}
    own = answers.filter(pl.col("model") == label)
    return {
        (split, metric): found
        for split in own["split"].unique()
        for metric, found in estimate(own.filter(pl.col("split") == split), config.evaluation, split).items()
    }


def same_questions(run: Run, other: Run) -> bool:
    """Return whether two runs were evaluated on the same questions."""
    asked = [
        None if answers is None else answers.select("split", "id").unique().sort("split", "id")
        for answers in (graded(run), graded(other))
    ]
    return asked[0] is not None and asked[1] is not None and asked[0].equals(asked[1])


def judge(rows: list[dict[str, Any]], config: Config) -> tuple[bool, str]:
    """Return whether a model may be promoted by rows of schema DRIFT, and why, in words."""
    past = [row for row in rows if row["strain"] >= 1]
    decides = [row for row in past if config.rounds.gold_may_refuse or not SIGNALS[row["signal"]].reads_gold]
    only_told = [row for row in past if row not in decides]
    told = f"; gold has no say (rounds.gold_may_refuse), but: {_told(only_told)}" if only_told else ""
    if decides:
        return False, f"refused: {_told(decides)}{told}"
    nearest = max(rows, key=lambda row: float(row["strain"]))
    close = " (its interval reaches over it)" if nearest["strain"] < 1 <= nearest["strain_high"] else ""
    if only_told:
        return True, f"promoted: nothing that needs no gold is past its limit{told}"
    return True, f"promoted: nothing is past its limit; nearest: {_told([nearest])}{close}"


def _told(rows: list[dict[str, Any]]) -> str:
    gravest = sorted(rows, key=lambda row: -float(row["strain"]))
    more = f"; and {len(gravest) - _N_TOLD} more" if len(gravest) > _N_TOLD else ""
    return "; ".join(map(_tell, gravest[:_N_TOLD])) + more


def _tell(row: Mapping[str, Any]) -> str:
    signal, interval = SIGNALS[row["signal"]], f"[{row['low']:.3g}, {row['high']:.3g}]"
    change = f"{row['after']:.3g} {interval}"
    if row["before"] is not None:
        change = f"{row['before']:.3g} to {row['after']:.3g} ({row['after'] - row['before']:+.3g} {interval})"
    return f"{signal.words} {change}, {row['strain']:.2f} of the way to {signal.setting} = {row['limit']:g}"


def _row(name: str, before: Floats | None, after: Floats, n: int, config: Config) -> Iterator[dict[str, Any]]:
    """Yield the row of a signal by its draws [1 + n_resamples] before and after; none where it has no value."""
    signal = SIGNALS[name]
    section, _, setting = signal.setting.partition(".")
    limit = getattr(getattr(config, section), setting)
    strain = np.minimum(signal.strain(1.0 if before is None else before, after, limit), _MOST)
    if not np.isfinite(strain[0]):
        return
    tail = (1 - config.evaluation.confidence_level) / 2
    ends = [
        np.nanquantile(draws[1:], [tail, 1 - tail]) for draws in (after - (0 if before is None else before), strain)
    ]
    yield {
        "signal": name,
        "before": None if before is None else before[0],
        "after": after[0],
        "low": ends[0][0],
        "high": ends[0][1],
        "n": n,
        "setting": signal.setting,
        "limit": limit,
        "strain": strain[0],
        "strain_low": ends[1][0],
        "strain_high": ends[1][1],
    }


def _own(side: Survey) -> dict[str, Measure]:
    """Return the measures of one model."""
    sums = {column: side.questions[column].to_numpy() for column in side.questions.columns if column != "id"}
    used = np.diff(side.neurons.offsets) / side.n_neurons
    return {
        "vote_share": mean(sums["vote_share"]),
        "answer_variety": _variety(side),
        "abstention": mean(sums["abstained"], sums["responses"]),
        "clipped_share": mean(sums["clipped"], sums["responses"]),
        "response_tokens": mean(sums["tokens"], sums["responses"]),
        "token_entropy": mean(sums["surprise"], sums["tokens"]),
        "mui": mean(used),
    }


def _between(pool: pl.DataFrame, before: Survey, after: Survey) -> dict[str, Measure]:
    """Return the measures that compare two models."""
    one, two = (side.questions["majority"] for side in (before, after))
    beliefs = compare_beliefs(pool, before.ballots, after.ballots)["belief_shift"]
    overlaps = [jaccard(a, b) for a, b in zip(_sets(before.neurons), _sets(after.neurons), strict=True)]
    return {
        "kept_answers": mean((one == two).fill_null(False), (one.is_not_null() & two.is_not_null())),
        "belief_shift": mean(beliefs.fill_null(0.0), beliefs.is_not_null()),
        "neuron_overlap": mean(overlaps),
    }


def _sets(sets: NeuronSets) -> Iterator[Any]:
    return (sets.neurons[start:stop] for start, stop in zip(sets.offsets, sets.offsets[1:], strict=False))


def _variety(side: Survey) -> Callable[[Floats], Floats]:
    """Return the entropy (nats) of all answers that are stated, as a function of how often each question counts."""
    ids = side.questions.select("id", place=pl.int_range(pl.len()))
    kinds = side.stated.select("stated").unique().sort("stated").with_columns(kind=pl.int_range(pl.len()))
    cells = side.stated.join(ids, on="id").join(kinds, on="stated").group_by("place", "kind").len()
    counts = np.zeros((len(ids), len(kinds)))
    counts[cells["place"], cells["kind"]] = cells["len"]

    def entropy(w: Floats) -> Floats:
        drawn = w @ counts
        total = drawn.sum(1, keepdims=True)
        share = np.divide(drawn, total, out=np.zeros_like(drawn), where=total > 0)
        return (share * np.log(np.divide(1, share, out=np.ones_like(share), where=share > 0))).sum(1)

    return entropy
