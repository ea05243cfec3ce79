import numpy as np
import polars as pl
import pytest

from pipeline.errors import CurationError
from pipeline.evaluation.calibration import expected_calibration_error
from pipeline.evaluation.confidence import option_confidence, p_true_confidence, vote_confidence
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.metrics import METRIC_NAMES, summarise
from pipeline.evaluation.schemas import METRICS, PREDICTIONS
from pipeline.predictions.contenders import compared
from pipeline.table import conform

CONFIG = EvaluationConfig(n_resamples=400)
GOLD = 0
CHANGE = "distilled - untouched"


def predictions(answers, model="untouched", split="in_domain", probs=None, p_true=None):
    """Rows for ``answers`` {question: [option index or none per sample]}; option 0 is right."""
    asked = p_true or {}
    rows = [
        {
            "model": model,
            "split": split,
            "id": question,
            "sample": sample,
            "answer": None if index is None else f"option {index}",
            "answer_index": index,
            "gold_index": GOLD,
            "correct": index == GOLD,
            "option_probs": None if index is None or probs is None else probs[question][sample],
            "p_true": asked.get(question),
        }
        for question, indices in answers.items()
        for sample, index in enumerate(indices)
    ]
    return pl.DataFrame(rows, schema=pl.DataFrame(PREDICTIONS.empty_table()).schema)


def simulated(rng, n=60, k=4, skill=None, model="untouched"):
    """Questions of different difficulty; of two options, sampled by their probabilities, the first is right."""
    skill = rng.random(n) if skill is None else skill
    answers = {f"q{i:03}": (rng.random(k) > p).astype(int).tolist() for i, p in enumerate(skill)}
    probs = {f"q{i:03}": [[p, 1 - p]] * k for i, p in enumerate(skill)}
    return predictions(answers, model, probs=probs, p_true={f"q{i:03}": 1 - p / 2 for i, p in enumerate(skill)})


def figure(metrics, name, model="untouched"):
    return metrics.filter((pl.col("metric") == name) & (pl.col("model") == model)).row(0, named=True)


def width(row):
    return row["high"] - row["low"]


def test_avg_and_maj_by_hand():
    answers = {
        "all right": [0, 0, 0, 0],
        "majority wrong": [1, 1, 1, 0],
        "tie of two, one right": [0, 0, 1, 1],
        "tie of three after abstention": [0, 1, 2, None],
        "silent": [None] * 4,
    }
    metrics = summarise(predictions(answers), CONFIG)
    assert figure(metrics, "avg_at_k")["value"] == pytest.approx((4 + 1 + 2 + 1 + 0) / 20)
    assert figure(metrics, "maj_at_k")["value"] == pytest.approx((1 + 0 + 1 / 2 + 1 / 3 + 0) / 5)
    votes = vote_confidence(predictions(answers))
    assert dict(votes.select("id", "confidence").iter_rows()) == {
        "all right": 1.0,
        "majority wrong": 0.75,
        "tie of two, one right": 0.5,
        "tie of three after abstention": 0.25,
        "silent": 0.0,
    }
    assert "ece_option" not in metrics["metric"].to_list()


def test_open_answers_vote_by_their_normal_form():
    table = predictions({"q": [0, 0, 1, 1, 2]}).with_columns(
        answer=pl.Series(["5", "5.0", "6", "six", None]), answer_index=pl.lit(None, dtype=pl.Int32)
    )
    assert vote_confidence(table).row(0, named=True) == {
        "model": "untouched",
        "split": "in_domain",
        "id": "q",
        "confidence": 0.4,
        "correct": 1.0,
    }


def test_two_options_of_the_same_text_are_two_answers():
    table = predictions({"q": [0, 1, 2, 2]}).with_columns(answer=pl.Series(["same", "same", "other", "other"]))
    votes = vote_confidence(table).row(0, named=True)
    assert (votes["confidence"], votes["correct"]) == (0.5, 0.0)


def test_option_confidence_is_the_leading_options_mean_over_the_samples():
    """Samples of one question that are sure of different options make a model that is sure of neither."""
    answers = {
        "leads": [0, 0, 1],
        "misleads": [1, 0, None],
        "no sample states the leader": [1, 2],
        "tie of two, one right": [0, 1],
        "tie of wrong ones": [1, 2],
        "tells nothing": [0, 0],
    }
    probs = {
        "leads": [[1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.2, 0.8, 0.0]],
        "misleads": [[0.1, 0.9, 0.0], [0.6, 0.4, 0.0], [1.0, 0.0, 0.0]],
        "no sample states the leader": [[0.4, 0.6, 0.0], [0.4, 0.0, 0.6]],
        "tie of two, one right": [[0.7, 0.3, 0.0], [0.3, 0.7, 0.0]],
        "tie of wrong ones": [[0.0, 0.9, 0.1], [0.0, 0.1, 0.9]],
        "tells nothing": [None, None],
    }
    found = {row["id"]: row for row in option_confidence(predictions(answers, probs=probs)).to_dicts()}
    expected = {
        "leads": (2.1 / 3, 1),
        "misleads": (1.3 / 2, 0),
        "no sample states the leader": (0.4, 1),
        "tie of two, one right": (0.5, 1 / 2),
        "tie of wrong ones": (0.5, 0),
    }
    assert found.keys() == expected.keys()
    for question, figures in expected.items():
        assert (found[question]["confidence"], found[question]["correct"]) == pytest.approx(figures)


def test_option_confidence_needs_a_gold_option():
    table = predictions({"q": [0]}, probs={"q": [[0.7, 0.3]]})
    assert option_confidence(table.with_columns(gold_index=pl.lit(None, dtype=pl.Int32))).is_empty()


def test_p_true_is_of_the_majority_answers_that_the_model_was_asked_about():
    answers = {"right": [0, 0, 1], "wrong": [1, 1, 0], "not asked": [0, 0, 0]}
    table = p_true_confidence(predictions(answers, p_true={"right": 0.9, "wrong": 0.7}))
    assert table.select("id", "confidence", "correct").rows() == [("right", 0.9, 1.0), ("wrong", 0.7, 0.0)]
    assert not [name for name in summarise(predictions(answers), CONFIG)["metric"] if name.endswith("p_true")]


def test_values_equal_the_plain_functions():
    table = simulated(np.random.default_rng(1))
    metrics = summarise(table, CONFIG)
    for kind, of in (("option", option_confidence), ("vote", vote_confidence), ("p_true", p_true_confidence)):
        confidences = of(table)
        sure, right = confidences["confidence"].to_numpy(), confidences["correct"].to_numpy()
        assert figure(metrics, f"ece_{kind}")["value"] == pytest.approx(expected_calibration_error(sure, right))
        assert figure(metrics, f"brier_{kind}")["value"] == pytest.approx(np.square(sure - right).mean())


def test_intervals_equal_resampling_whole_questions_one_by_one():
    table = simulated(np.random.default_rng(2), n=25)
    metrics = summarise(table, EvaluationConfig(n_resamples=4_000))
    rng = np.random.default_rng(3)
    groups = [
        (g["confidence"].to_numpy(), g["correct"].to_numpy())
        for g in option_confidence(table).partition_by("id", maintain_order=True)
    ]
    values = []
    for _ in range(4_000):
        drawn = [groups[i] for i in rng.integers(len(groups), size=len(groups))]
        values.append(expected_calibration_error(*(np.concatenate(part) for part in zip(*drawn, strict=True))))
    row = figure(metrics, "ece_option")
    assert [row["low"], row["high"]] == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.01)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(4)
    rows = [figure(summarise(simulated(rng), CONFIG), "avg_at_k") for _ in range(150)]
    assert 0.88 <= np.mean([row["low"] <= 0.5 <= row["high"] for row in rows]) <= 0.99  # mean skill is 1/2


def test_repeated_samples_do_not_shrink_the_intervals():
    table = simulated(np.random.default_rng(5))
    doubled = pl.concat([table, table.with_columns(pl.col("sample") + 4)])
    once, twice = (
        summarise(rows, CONFIG).filter(~pl.col("metric").str.starts_with("pass_at")) for rows in (table, doubled)
    )
    for column in ("value", "low", "high"):
        assert twice[column].to_numpy() == pytest.approx(once[column].to_numpy())
    assert set(twice["k"]) == {8}


def test_paired_difference_is_narrower_than_unpaired_for_correlated_models():
    rng = np.random.default_rng(6)
    skill = rng.random(200)
    before = simulated(rng, skill=skill)
    after = simulated(rng, skill=np.clip(skill + 0.1, 0, 1), model="distilled")
    metrics = summarise(pl.concat([before, after]), CONFIG)
    change, one, two = (figure(metrics, "avg_at_k", m) for m in (CHANGE, "untouched", "distilled"))
    assert change["value"] == pytest.approx(two["value"] - one["value"])
    assert width(change) < 0.8 * np.hypot(width(one), width(two))
    assert 0 < change["low"] < change["high"]


def test_identical_models_differ_by_exactly_nothing():
    table = simulated(np.random.default_rng(7))
    metrics = summarise(pl.concat([table, table.with_columns(model=pl.lit("distilled"))]), CONFIG)
    same = metrics.filter(pl.col("model") == CHANGE)
    assert same["metric"].to_list() == list(METRIC_NAMES)
    assert same.select("value", "low", "high").to_numpy().tolist() == [[0.0] * 3] * len(METRIC_NAMES)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (
            ["distilled", "sft", "untouched"],
            ["untouched", "sft", "distilled", "distilled - untouched", "distilled - sft"],
        ),
        (
            ["ceiling (gold)", "distilled", "grpo (self_certainty)", "untouched"],
            [
                *("untouched", "grpo (self_certainty)", "distilled", "ceiling (gold)"),
                *("distilled - untouched", "distilled - grpo (self_certainty)", "ceiling (gold) - distilled"),
            ],
        ),
    ],
)
def test_distilled_is_compared_with_each_other_model_question_by_question(labels, expected):
    rng = np.random.default_rng(15)
    tables = {model: simulated(rng, model=model) for model in labels}
    metrics = summarise(pl.concat(tables.values()), CONFIG)
    models = metrics["model"].unique(maintain_order=True).to_list()
    assert models == expected
    for difference, (one, other) in ((name, pair) for name in models if (pair := compared(name))):
        for name in METRIC_NAMES:
            change, after, before = (figure(metrics, name, model)["value"] for model in (difference, one, other))
            assert change == pytest.approx(after - before)
        pair = summarise(pl.concat([tables[one], tables[other]]), CONFIG).filter(pl.col("model") == difference)
        assert pair.equals(metrics.filter(pl.col("model") == difference))


def test_no_difference_without_the_same_questions():
    rng = np.random.default_rng(8)
    fewer = simulated(rng, n=59, model="distilled")
    assert set(summarise(pl.concat([simulated(rng), fewer]), CONFIG)["model"]) == {"untouched", "distilled"}


def test_neither_row_order_nor_other_tests_nor_models_change_a_figure():
    rng = np.random.default_rng(9)
    table = pl.concat([simulated(rng), simulated(rng, model="distilled")])
    other = simulated(rng, n=10).with_columns(split=pl.lit("out_of_domain"))
    metrics = summarise(table, CONFIG)
    assert metrics.equals(summarise(table.sample(fraction=1, shuffle=True, seed=1), CONFIG))
    assert metrics.equals(summarise(pl.concat([other, table]), CONFIG).filter(pl.col("split") == "in_domain"))
    alone = summarise(table.filter(pl.col("model") == "distilled"), CONFIG)
    assert alone.equals(metrics.filter(pl.col("model") == "distilled"))


def test_seed_decides_the_intervals_and_rows_fit_the_schema():
    table = simulated(np.random.default_rng(10))
    one, other = (summarise(table, CONFIG.model_copy(update={"seed": seed})) for seed in (1, 2))
    assert one["value"].equals(other["value"])
    assert not one["low"].equals(other["low"])
    assert one["seed"].to_list() == [1] * len(METRIC_NAMES)
    assert (one["n"].unique().to_list(), one["k"].unique().to_list()) == ([60], [4])
    assert conform(one, METRICS, "test").num_rows == len(METRIC_NAMES)


def test_n_of_option_metrics_counts_questions_that_state_an_option():
    table = simulated(np.random.default_rng(11))
    silent = pl.when(pl.col("id") < "q010").then(None).otherwise(pl.col("option_probs"))
    metrics = summarise(table.with_columns(option_probs=silent), CONFIG)
    assert figure(metrics, "ece_option")["n"] == 50
    assert figure(metrics, "ece_vote")["n"] == 60
    other = table.with_columns(
        model=pl.lit("distilled"),
        option_probs=pl.when(pl.col("id") < "q020").then(pl.col("option_probs")),
    )
    both = summarise(pl.concat([table.with_columns(option_probs=silent), other]), CONFIG)
    assert figure(both, "ece_option", CHANGE)["n"] == 10  # q010 to q019


def test_resamples_without_any_option_probability_leave_the_interval_finite():
    table = simulated(np.random.default_rng(14))
    row = figure(
        summarise(table.with_columns(option_probs=pl.when(pl.col("id") == "q000").then("option_probs")), CONFIG),
        "brier_option",
    )
    assert row["low"] == pytest.approx(row["value"]) == pytest.approx(row["high"])


def test_refuses_nothing_and_repeated_or_missing_samples():
    table = simulated(np.random.default_rng(12), n=3)
    for bad in (pl.concat([table, table.head(1)]), table.tail(-1), pl.concat([table, table])):
        with pytest.raises(CurationError, match=r"in_domain: question 'q00"):
            summarise(bad, CONFIG)
    with pytest.raises(CurationError, match="no predictions"):
        summarise(table.clear(), CONFIG)
