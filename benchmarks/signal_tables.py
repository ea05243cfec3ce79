"""Every signal of a finished run, and what gold says of its questions: one row per pool question.

Signals are such that larger is thought better. What they are held against is sampled anew, so that no signal shares
chance with it: a question that was answered wrong by chance would else look as if its context had helped.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import rankdata

from benchmarks.signal_probe import gradients
from pipeline.answers.equivalence import normalised
from pipeline.answers.read import read_answers
from pipeline.beliefs.beliefs import compare_beliefs, pool_contexts
from pipeline.config import Config
from pipeline.evaluation.grade import grade
from pipeline.models import LanguageModel, load_model
from pipeline.rollouts.sample import Asking, sample_rollouts
from pipeline.seeding import derive_seed
from pipeline.selection.rule import Signals
from pipeline.selection.rules import RULES
from pipeline.selection.steady_shift import nearest_stems
from pipeline.store.store import Run
from pipeline.teacher.run import stored_questions
from pipeline.votes.vote import ballots

N_SAMPLES = 4
"""Responses per question and side."""
OUTCOMES = ("majority", "right", "teacher_gain", "student_gain", "near_gain")
GIVEN = ("vote_share", "entropy", "length")
"""What a signal has to go beyond."""


def read_signals(run: Run, seed: int) -> Signals:
    """Return what selection rules see of a run."""
    scores = run.require("neuron_scores")
    return Signals(
        pool=run.require("pool").read(),
        pseudo_labels=run.require("pseudo_labels").read(),
        neuron_sizes=scores.read("neuron_sizes"),
        neuron_scores=scores.scan(),
        stem_scores=scores.scan("stem_scores"),
        beliefs=run.require("context_beliefs").read(),
        seed=seed,
    )


def signal_table(run: Run, config: Config, seed: int, adapter: Run | None) -> pl.DataFrame:
    """Return ``id``, ``OUTCOMES``, and a column per signal, sorted by id; null where a signal has no value.

    ``teacher_gain`` is the share right with the context minus that without. ``student_gain`` and ``near_gain`` are what
    distillation on random questions (the run ``adapter``, where given) changed in a question that it trained on, and
    in the mean of the nearest questions that it did not.
    """
    signals, model = read_signals(run, seed), load_model(config.model)
    names = ("pool", "pseudo_labels", "rollouts", "neuron_scores")
    questions = stored_questions({name: run.require(name) for name in names})
    contexts = pool_contexts(questions, model.tokenizer, config.context_beliefs, config.rollouts)
    gold = run.require("gold_labels").read()

    def sample(model: LanguageModel, side: str, contexts: dict[str, str] | None) -> pl.DataFrame:
        changes = {"n_samples": N_SAMPLES, "seed": derive_seed(seed, "signals", side)}
        section = config.rollouts.model_copy(update=changes)
        rollouts = pl.concat(sample_rollouts(signals.pool, model, Asking.of(section, section), contexts))
        answers = read_answers(rollouts, signals.pool, model.tokenizer)
        return ballots(rollouts.lazy(), answers.lazy())

    def right(answered: pl.DataFrame) -> pl.DataFrame:
        stated = answered.with_columns(option_probs=pl.lit(None, dtype=pl.List(pl.Float32)))
        graded = grade(stated, gold, "any", "pool")
        return graded.group_by("id").agg(right=pl.col("correct").mean())

    bare, told = sample(model, "bare", None), sample(model, "told", contexts)
    wrong = sample(model, "wrong", _shifted(contexts, seed))
    table = signals.pool.select("id").sort("id").join(_labels(signals, gold), on="id", how="left")
    table = table.join(_difference(right(told), right(bare), "teacher_gain"), on="id", how="left")
    table = table.join(_student(signals, bare, right, sample, config, adapter), on="id", how="left")
    probe = gradients(run.require("rollouts").read(), contexts, model)
    for name, column in {**_rules(signals), **_others(run, signals, wrong), **_learnability(signals, probe)}.items():
        table = table.join(column.select("id", pl.col("value").cast(pl.Float64).alias(name)), on="id", how="left")
    return table.fill_nan(None).sort("id")


def _shifted(contexts: dict[str, str], seed: int) -> dict[str, str]:
    """Return another question's context for each question."""
    order = sorted(contexts, key=lambda key: derive_seed(seed, "wrong", key))
    return dict(zip(order, [contexts[key] for key in [*order[1:], order[0]]], strict=True))


def _labels(signals: Signals, gold: pl.DataFrame) -> pl.DataFrame:
    is_option = pl.col("gold_index").is_not_null()
    same_text = pl.col("given") == pl.col("wanted")
    labels = signals.pseudo_labels.join(gold, on="id").with_columns(
        given=normalised("pseudo_answer"), wanted=normalised("gold_answer")
    )
    return labels.select(
        "id",
        majority=pl.col("state") == "majority",
        right=pl.when(is_option).then(pl.col("pseudo_index") == pl.col("gold_index")).otherwise(same_text),
    )


def _difference(after: pl.DataFrame, before: pl.DataFrame, name: str) -> pl.DataFrame:
    return after.join(before, on="id", suffix="_before").select(
        "id", (pl.col("right") - pl.col("right_before")).alias(name)
    )


def _student(
    signals: Signals,
    bare: pl.DataFrame,
    right: Callable[[pl.DataFrame], pl.DataFrame],
    sample: Callable[..., pl.DataFrame],
    config: Config,
    adapter: Run | None,
) -> pl.DataFrame:
    nothing = dict.fromkeys(("student_gain", "near_gain"), pl.Float64)
    if adapter is None:
        return pl.DataFrame(schema={"id": pl.String} | nothing)
    student = load_model(config.model, Path(adapter.require("distilled_adapter").folder))
    change = _difference(right(sample(student, "student", None)), right(bare), "change").sort("id")
    trained = adapter.require("curated_subset").read().select("id", "selected")
    known = signals.pool.select("id").sort("id").join(change, on="id", how="left").join(trained, on="id", how="left")
    rows, weights = nearest_stems(signals.stem_scores, known["id"])
    values, chosen = known["change"].fill_null(0).to_numpy(), known["selected"].to_numpy()
    counted = (weights > 0) & ~chosen[rows]
    with np.errstate(invalid="ignore"):
        near = np.where(chosen, (counted * values[rows]).sum(1) / counted.sum(1), np.nan)
    return known.select("id", student_gain=pl.when("selected").then("change"), near_gain=pl.Series(near))


def _rules(signals: Signals) -> dict[str, pl.DataFrame]:
    """Return the scores of all rules, turned round: what is kept first is largest."""
    scored = {name: rule(signals) for name, rule in RULES.items() if name not in ("random", "full")}
    return {name: scores.select("id", value=-pl.col("score").cast(pl.Float64)) for name, scores in scored.items()}


def _others(run: Run, signals: Signals, wrong: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return signals that no rule has: of stems, of agreement beyond answers, and against wrong contexts."""
    stems, pool = signals.stem_scores, signals.pool
    mass = pl.col("scores").list.eval(pl.element().cast(pl.Float64))
    shape = mass.list.sum() ** 2 / mass.list.eval(pl.element() ** 2).list.sum()
    plain = ballots(run.require("rollouts").scan(), run.require("answers").scan())
    moved = compare_beliefs(pool, plain, wrong).select("id", control="belief_shift")
    controlled = signals.beliefs.join(moved, on="id")
    agreement = RULES["neuron_agreement"](signals).select("id", agreement=1 - pl.col("score"))
    votes = signals.pseudo_labels.filter(pl.col("n_votes") > 0).select("id", "vote_share", "entropy")
    joint = agreement.join(votes, on="id").drop_nulls().sort("id")
    rest = residuals(joint["agreement"].to_numpy()[:, None], joint.select("vote_share", "entropy").to_numpy())
    return {
        "stem_density": stems.select("id", value=-pl.col("neurons").list.len().cast(pl.Float64)).collect(),
        "stem_concentration": stems.select("id", value=-shape).collect(),
        "agreement_beyond_answers": joint.select("id", value=pl.Series(rest[:, 0])),
        "informed_share": signals.beliefs.select("id", value="informed_share"),
        "shift_by_wrong_context": controlled.select("id", value="control"),
        "shift_over_control": controlled.select("id", value=pl.col("belief_shift") - pl.col("control")),
    }


def _learnability(signals: Signals, probe: np.ndarray) -> dict[str, pl.DataFrame]:
    """Return what a step on a question would gain near questions, and how large the step is."""
    ids = signals.pool["id"].sort()
    rows, weights = nearest_stems(signals.stem_scores, ids)
    norms = np.linalg.norm(probe, axis=1)
    products = np.stack([probe[rows[i]] @ probe[i] for i in range(len(probe))])
    cosines = products / np.maximum(norms[:, None] * norms[rows], 1e-12)
    near = weights > 0
    with np.errstate(invalid="ignore"):
        gain, cosine = ((near * each).sum(1) / near.sum(1) for each in (products, cosines))
    values = {"gradient_norm": norms, "near_step_gain": gain, "near_step_cosine": cosine}
    return {name: pl.DataFrame({"id": ids, "value": each}) for name, each in values.items()}


def residuals(ranked: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Return the residuals of the ranks of ``ranked [n, m]``'s columns, by least squares on the ranks of ``given``."""
    design = np.column_stack([np.ones(len(given)), rankdata(given, axis=0)])
    ranks = rankdata(ranked, axis=0)
    return ranks - design @ np.linalg.lstsq(design, ranks, rcond=None)[0]
