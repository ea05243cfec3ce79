"""Every signal of a finished run, and what gold says of its questions: one row per pool question.

Signals are such that larger is kept first. What they are held against is sampled anew, so that no signal shares chance
with it: a question that was answered wrong by chance would else look as if its context had helped.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np
import polars as pl

from benchmarks.signal_probe import gradients
from pipeline.answers.equivalence import normalised
from pipeline.answers.read import read_answers
from pipeline.beliefs.beliefs import compare_beliefs, pool_contexts
from pipeline.config import Config
from pipeline.evaluation.grade import grade
from pipeline.models import LanguageModel, load_model
from pipeline.retrieval.nearest import nearest_by_overlap
from pipeline.retrieval.rare import common_neurons, without
from pipeline.retrieval.sets import NeuronSets
from pipeline.rollouts.config import RolloutsConfig
from pipeline.rollouts.sample import Asking, sample_rollouts
from pipeline.seeding import derive_seed
from pipeline.selection.rule import Signals
from pipeline.selection.rules import RULES
from pipeline.selection.steady_shift import MAX_SHARE, N_NEAREST
from pipeline.store.store import Run
from pipeline.teacher.run import stored_questions
from pipeline.votes.vote import ballots

N_SAMPLES = 4
"""Responses per question and side."""
OUTCOMES = ("right", "teacher_gain", "student_gain", "near_gain")
LEARNABILITY = ("gradient_norm", "near_step_gain", "near_step_cosine")
CONTROLLED = ("shift_by_wrong_context", "shift_over_control")
"""Signals that are read from the model anew."""
_READ = ("pool", "pseudo_labels", "rollouts", "neuron_scores")


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


def signal_table(run: Run, config: Config, seed: int, *, is_asked: bool = True) -> pl.DataFrame:
    """Return ``id``, ``OUTCOMES``, and a column per signal, sorted by id; null where there is no value.

    ``right`` says whether the majority answer is; null without a majority. ``teacher_gain`` is the share right with the
    context minus that without. Where the run's student was distilled on random questions, ``student_gain`` is what
    this changed in a question that it trained on, and ``near_gain`` the mean change in the nearest ones that it did not
    train on. Unless the model ``is_asked``, gains and the signals that are read from the model are null.
    """
    signals, gold = read_signals(run, seed), run.require("gold_labels").read()
    table = _labels(signals, gold)
    nothing = dict.fromkeys((*OUTCOMES[1:], *LEARNABILITY, *CONTROLLED), pl.lit(None, pl.Float64))
    table = table.with_columns(**(_asked(run, config, signals, gold) if is_asked else nothing))
    for name, column in {**_rules(signals), **_others(signals)}.items():
        table = table.join(column.select("id", pl.col("value").cast(pl.Float64).alias(name)), on="id", how="left")
    return table.fill_nan(None).sort("id")


def _asked(run: Run, config: Config, signals: Signals, gold: pl.DataFrame) -> dict[str, pl.Series | np.ndarray]:
    """Return what the model, its student and its gradients tell, sorted by id."""
    ids, seed, model = signals.pool["id"].sort(), signals.seed, load_model(config.model)
    questions = stored_questions({name: run.require(name) for name in _READ})
    contexts = pool_contexts(questions, model.tokenizer, config.context_beliefs, config.rollouts)
    ask, share_right = partial(_ask, signals.pool, config.rollouts, seed), partial(_share_right, gold)
    bare, near = share_right(ask("bare", model)), nearest_stems(signals.stem_scores, ids)
    gains = dict.fromkeys(("student_gain", "near_gain"), np.full(len(ids), np.nan))
    if config.curated_subset.rule == "random":
        student = load_model(config.model, run.require("distilled_adapter").folder)
        gains = _student_gains(run, (share_right(ask("student", student)) - bare).to_numpy(), near)
    plain = ballots(run.require("rollouts").scan(), run.require("answers").scan())
    wrong = compare_beliefs(signals.pool, plain, ask("wrong", model, _shifted(contexts, seed))).sort("id")
    own = signals.beliefs.sort("id")["belief_shift"]
    return {
        "teacher_gain": share_right(ask("told", model, contexts)) - bare,
        **gains,
        **_learnability(gradients(run.require("rollouts").read(), contexts, model), near),
        **dict(zip(CONTROLLED, (wrong["belief_shift"], own - wrong["belief_shift"]), strict=True)),
    }


def nearest_stems(stem_scores: pl.LazyFrame, ids: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of the questions nearest to each of the sorted ids, as ``steady_shift`` does, and whether one is.

    Both are ``[n, N_NEAREST + 1]``. The question itself is none, nor is one that shares no rarer neuron of the stem.
    """
    rarer = stem_scores.select("id", without(common_neurons(stem_scores, len(ids), MAX_SHARE)))
    sets = NeuronSets.of(rarer, ids)
    rows, similarities = nearest_by_overlap(sets, sets, N_NEAREST + 1)  # itself among them
    return rows, (similarities > 0) & (rows >= 0) & (rows != np.arange(len(ids))[:, None])


def _ask(
    pool: pl.DataFrame,
    config: RolloutsConfig,
    seed: int,
    side: str,
    model: LanguageModel,
    contexts: Mapping[str, str] | None = None,
) -> pl.DataFrame:
    """Return ballots of the pool's questions, by draws of this side's own."""
    own = config.model_copy(update={"n_samples": N_SAMPLES, "seed": derive_seed(seed, "signals", side)})
    rollouts = pl.concat(sample_rollouts(pool, model, Asking.of(own, own), contexts))
    return ballots(rollouts.lazy(), read_answers(rollouts, pool, model.tokenizer).lazy())


def _share_right(gold: pl.DataFrame, answered: pl.DataFrame) -> pl.Series:
    """Return the share of right answers of each question, sorted by id; null without gold."""
    stated = answered.with_columns(option_probs=pl.lit(None, dtype=pl.List(pl.Float32)))
    graded = grade(stated, gold, "any", "pool").group_by("id").agg(right=pl.col("correct").mean())
    return answered.select("id").unique().sort("id").join(graded, on="id", how="left", maintain_order="left")["right"]


def _labels(signals: Signals, gold: pl.DataFrame) -> pl.DataFrame:
    """Return ``id``, sorted, and ``right``."""
    same_text = normalised("pseudo_answer") == normalised("gold_answer")
    same_option = pl.col("pseudo_index") == pl.col("gold_index")
    right = pl.when(pl.col("gold_index").is_not_null()).then(same_option).otherwise(same_text)
    labels = signals.pseudo_labels.filter(pl.col("state") == "majority").join(gold, on="id")
    labels = labels.select("id", right=right.cast(pl.Float64))
    return signals.pool.select("id").join(labels, on="id", how="left").sort("id")


def _student_gains(run: Run, change: np.ndarray, near: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
    chosen = run.require("curated_subset").read().sort("id")["selected"].to_numpy()
    rows, is_near = near
    around = _mean(change[rows], is_near & ~chosen[rows])
    return {"student_gain": np.where(chosen, change, np.nan), "near_gain": np.where(chosen, around, np.nan)}


def _mean(values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Return the mean of the counted values ``[n, k]`` of each row, nan where there is none."""
    with np.errstate(invalid="ignore"):
        return np.where(counted, values, 0).sum(1) / counted.sum(1)


def _shifted(contexts: Mapping[str, str], seed: int) -> dict[str, str]:
    """Return another question's context for each question; one in hundreds shows by chance the question itself."""
    order = sorted(contexts, key=lambda key: derive_seed(seed, "wrong", key))
    return dict(zip(order, [contexts[key] for key in [*order[1:], order[0]]], strict=True))


def _rules(signals: Signals) -> dict[str, pl.DataFrame]:
    """Return the scores of all rules, turned round."""
    scored = {name: rule(signals) for name, rule in RULES.items() if name not in ("random", "full")}
    return {name: scores.select("id", value=-pl.col("score").cast(pl.Float64)) for name, scores in scored.items()}


def _others(signals: Signals) -> dict[str, pl.DataFrame]:
    """Return signals that no rule has."""
    mass = pl.col("scores").list.eval(pl.element().cast(pl.Float64))
    width = mass.list.sum() ** 2 / mass.list.eval(pl.element() ** 2).list.sum()
    stems = signals.stem_scores.select("id", density=-pl.col("neurons").list.len().cast(pl.Float64), width=-width)
    return {
        "stem_density": stems.select("id", value="density").collect(),
        "stem_concentration": stems.select("id", value="width").collect(),
        "informed_share": signals.beliefs.select("id", value="informed_share"),
    }


def _learnability(probe: np.ndarray, near: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
    """Return how large a step on each question is, and what it would gain near ones."""
    rows, is_near = near
    norms = np.linalg.norm(probe, axis=1)
    products = np.stack([probe[rows[i]] @ probe[i] for i in range(len(probe))])
    cosines = products / np.maximum(norms[:, None] * norms[rows], 1e-12)
    return dict(zip(LEARNABILITY, (norms, _mean(products, is_near), _mean(cosines, is_near)), strict=True))
