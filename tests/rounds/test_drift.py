"""The drift gate on models that are made up: what each signal is, where its limit is, and what the verdict says."""

import math
from itertools import product

import polars as pl
import pytest

from pipeline.config import Config
from pipeline.errors import ArtifactError
from pipeline.evaluation.config import EvaluationConfig
from pipeline.rounds.drift import SIGNALS, judge, measure_drift, measure_gold
from pipeline.stages import CATALOGUE, open_store
from pipeline.votes.config import PseudoLabelsConfig
from pipeline.votes.vote import ballots, vote

CONFIG = Config(evaluation=EvaluationConfig(n_resamples=200))
N_QUESTIONS, N_SAMPLES, N_NEURONS = 16, 4, 64
OPTIONS = ["iron", "lead", "zinc", "gold"]
OF_GOLD = {name for name, signal in SIGNALS.items() if signal.reads_gold}


def sound(question, sample):
    """Return what a sound model does: option and its letter vary over questions, and a sample in four disagrees."""
    return {
        "option": (question + (sample == 3)) % 4,
        "tokens": 10,
        "surprise": 0.5,
        "neurons": range(question, question + 10),
    }


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """Return a function that makes the run of a model from what it does with a sample of a question."""
    store = open_store(tmp_path_factory.mktemp("data"))
    numbers = iter(range(100))

    def make(act, n_questions=N_QUESTIONS):
        run = store.run(f"model-{next(numbers)}")
        ids = [f"q{number:02}" for number in range(n_questions)]
        acts = {(i, s): sound(i, s) | act(i, s) for i, s in product(range(n_questions), range(N_SAMPLES))}
        pool = [{"id": i, "options": OPTIONS, "question": i} for i in ids]
        rollouts, answers, scores = [], [], []
        for (i, s), did in acts.items():
            own = {"id": ids[i], "sample": s}
            option = did["option"]
            rollouts.append(
                own
                | {"permutation": [0, 1, 2, 3], "finish_reason": did.get("finish", "stop")}
                | {"logprobs": [-did["surprise"]] * did["tokens"]}
            )
            answers.append(own | {"answer": None if option is None else OPTIONS[option], "answer_index": option})
            scores.append(own | {"neurons": list(did["neurons"])})
        put(run, "pool", pool=pool)
        put(run, "rollouts", rollouts=rollouts)
        put(run, "answers", answers=answers)
        counted = ballots(run.require("rollouts").scan(), run.require("answers").scan())
        put(run, "pseudo_labels", pseudo_labels=vote(counted, PseudoLabelsConfig()).to_dicts())
        put(run, "neuron_scores", neuron_scores=scores)
        return run

    return make


def put(run, name, **tables):
    with run.store.write(name, run.name, {}, {"inputs": {}, "model": None}) as writer:
        writer.footer = {"n_layers": "2", "d_mlp": str(N_NEURONS // 2)}
        for table, rows in tables.items():
            kinds = pl.DataFrame(CATALOGUE[name][table].empty_table()).schema
            empty = {column: {pl.String: "", pl.List: []}.get(kind.base_type(), 0) for column, kind in kinds.items()}
            writer.append(table, pl.DataFrame([empty | row for row in rows], schema=kinds))
    run.show(name, run.name)


@pytest.fixture(scope="module")
def before(answered):
    return answered(lambda *_: {})


def measured(before, after, config=CONFIG):
    return {row["signal"]: row for row in measure_drift(before, after, config)}


def test_a_model_that_did_not_change_has_not_moved(before):
    found = measured(before, before)
    assert found.keys() == SIGNALS.keys() - OF_GOLD
    assert all(row["strain"] == row["strain_low"] == row["strain_high"] == pytest.approx(0) for row in found.values())
    assert all(row["n"] == N_QUESTIONS for row in found.values())
    promoted, verdict = judge(list(found.values()), CONFIG)
    assert promoted
    assert verdict.startswith("promoted: nothing is past its limit")


def test_signals_are_what_a_plain_count_gives(before, answered):
    found = measured(
        before, answered(lambda i, s: {"option": None, "surprise": 0.25, "tokens": 20} if i < 4 and s else {})
    )
    assert found["abstention"]["before"] == 0
    assert found["abstention"]["after"] == pytest.approx(12 / 64)
    assert found["vote_share"]["before"] == pytest.approx(3 / 4)
    assert found["vote_share"]["after"] == pytest.approx((4 * 1 / 4 + 12 * 3 / 4) / 16)
    assert found["response_tokens"]["after"] == pytest.approx((12 * 20 + 52 * 10) / 64)
    assert found["token_entropy"]["after"] == pytest.approx((12 * 20 * 0.25 + 52 * 10 * 0.5) / (12 * 20 + 52 * 10))
    assert found["answer_variety"]["before"] == pytest.approx(math.log(4))
    assert found["mui"]["before"] == pytest.approx(10 / N_NEURONS)
    assert found["kept_answers"]["after"] == 1
    # A share of 3/4, 1/4 and none against one of 1/4, none and 3/4 abstentions, in a quarter of the questions.
    terms = (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(2) + 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(2)) / 2
    assert found["belief_shift"]["after"] == pytest.approx(terms / 4)


COLLAPSES = {
    "kept_answers": lambda i, s: {"option": (i + 1) % 4},
    "belief_shift": lambda i, s: {"option": (i + 2) % 4},
    "vote_share": lambda i, s: {"option": None if s else i % 4},
    "answer_variety": lambda i, s: {"option": 0},
    "abstention": lambda i, s: {"option": None},
    "clipped_share": lambda i, s: {"finish": "length"},
    "response_tokens": lambda i, s: {"tokens": 1},
    "token_entropy": lambda i, s: {"surprise": 0.01},
    "neuron_overlap": lambda i, s: {"neurons": range(i + 20, i + 30)},
    "mui": lambda i, s: {"neurons": range(i, i + 25)},
}


@pytest.mark.parametrize("signal", COLLAPSES)
def test_every_signal_refuses_a_model_that_it_shows_collapsed(before, answered, signal):
    found = measured(before, answered(COLLAPSES[signal]))
    assert found[signal]["strain"] >= 1
    promoted, verdict = judge([found[signal]], CONFIG)
    assert not promoted
    assert verdict.startswith(f"refused: {SIGNALS[signal].words} ")
    assert f"to {SIGNALS[signal].setting} = " in verdict
    section, _, setting = SIGNALS[signal].setting.partition(".")
    assert found[signal]["limit"] == getattr(getattr(CONFIG, section), setting)


def test_a_limit_that_is_raised_lets_a_model_through(before, answered):
    after = answered(lambda i, s: {"option": None if s == 1 else sound(i, s)["option"]})
    told = measured(before, after)["abstention"]
    assert (told["after"], told["strain"]) == (pytest.approx(0.25), pytest.approx(1.25))
    loose = Config(rounds={"max_abstention_rise": 0.3}, evaluation=CONFIG.evaluation)
    assert measured(before, after, loose)["abstention"]["strain"] == pytest.approx(0.25 / 0.3)
    assert judge(list(measured(before, after, loose).values()), loose)[0]


def test_intervals_hold_the_figure_and_tell_where_one_reaches_over_its_limit(before, answered):
    after = answered(lambda i, s: {"option": None} if i < 3 else {})
    row = measured(before, after)["abstention"]
    assert row["after"] - row["before"] == pytest.approx(3 / 16)
    assert row["low"] < 3 / 16 < row["high"]
    assert row["strain"] < 1 < row["strain_high"]
    promoted, verdict = judge([row], CONFIG)
    assert promoted
    assert verdict.endswith("(its interval reaches over it)")


def test_only_questions_that_both_models_were_asked_count(before, answered):
    found = measured(before, answered(lambda i, s: {"option": None} if i >= N_QUESTIONS else {}, n_questions=20))
    assert found["abstention"]["after"] == 0
    assert {row["n"] for row in found.values()} == {N_QUESTIONS}


def test_a_model_that_never_answers_is_judged_by_what_there_is(before, answered):
    mute = answered(lambda *_: {"option": None, "tokens": 0, "neurons": ()})
    found = measured(before, mute)
    assert "kept_answers" not in found
    assert found["response_tokens"]["strain"] == found["mui"]["strain"] == 99
    promoted, verdict = judge(list(found.values()), CONFIG)
    assert not promoted
    assert verdict.endswith("more")


def test_a_missing_artifact_is_named(before, tmp_path):
    with pytest.raises(ArtifactError, match="materialize 'pool' first"):
        measure_drift(before, open_store(tmp_path).run("empty"), CONFIG)


def evaluate(run, right):
    """Put the evaluation of models into a run: of 20 questions a test, so many are answered right by each."""
    rows = [
        {
            "model": model,
            "split": split,
            "id": f"{split}{i}",
            "sample": s,
            "answer": "a",
            "correct": i < n,
            "gold_index": 0,
        }
        for (model, split), n in right.items()
        for i, s in product(range(20), range(2))
    ]
    put(run, "evaluation", predictions=rows)
    return run


def both(untouched, distilled, outside=(18, 18)):
    pairs = {"in_domain": (untouched, distilled), "out_of_domain": outside}
    return {
        (m, split): n for split, pair in pairs.items() for m, n in zip(("untouched", "distilled"), pair, strict=True)
    }


def test_gold_is_told_and_decides_only_where_it_may(tmp_path):
    first = evaluate(open_store(tmp_path).run("first"), both(10, 15))
    second = evaluate(open_store(tmp_path).run("second"), both(15, 12, outside=(17, 16)))
    rows = {row["signal"]: row for row in measure_gold(second, first, CONFIG)}
    assert rows.keys() == OF_GOLD
    limit = CONFIG.checks.max_accuracy_loss  # the limit that the check of the same loss has
    assert rows["in_domain_accuracy"]["strain"] == pytest.approx(0.15 / limit)
    assert rows["out_of_domain_accuracy"]["strain"] == pytest.approx(0.05 / limit)
    assert rows["out_of_domain_accuracy_since_start"]["strain"] == pytest.approx(0.1 / limit)
    promoted, verdict = judge(list(rows.values()), CONFIG)
    assert promoted
    assert "gold has no say (rounds.gold_may_refuse), but: in-domain accuracy 0.75 to 0.6 (-0.15 [" in verdict
    promoted, verdict = judge(list(rows.values()), Config(rounds={"gold_may_refuse": True}))
    assert not promoted
    assert verdict.startswith("refused: in-domain accuracy 0.75 to 0.6")


@pytest.mark.parametrize("change", ["other questions", "other code", "gone"])
def test_with_a_first_round_that_cannot_be_compared_nothing_is(tmp_path, change):
    first, second = (evaluate(open_store(tmp_path).run(name), both(10, 15)) for name in ("first", "second"))
    path = first.require("evaluation").path("predictions")
    rows = pl.read_parquet(path)
    if change == "other questions":
        first = open_store(tmp_path).run("other")
        put(first, "evaluation", predictions=rows.with_columns(pl.col("id") + "x").to_dicts())
    elif change == "other code":
        rows.drop("option_probs").write_parquet(path)
    else:
        first.hide("evaluation")
    found = {row["signal"] for row in measure_gold(second, first, CONFIG)}
    assert found == OF_GOLD - {"out_of_domain_accuracy_since_start"}
