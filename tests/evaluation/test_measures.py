"""Measures against a kept library and against plain loops, on whole samples and on drawn ones."""

from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import auc, log_loss, roc_auc_score

from pipeline.evaluation.calibration import calibrated_errors, equal_mass_index, expected_calibration_error
from pipeline.evaluation.measures import FLOOR, aurc, auroc, calibration, mean, pass_at


@pytest.fixture(params=["votes", "options"])
def sample(request):
    """Confidences (few different ones, or many), outcomes and counts of three resamples, the first as it is."""
    rng = np.random.default_rng(0)
    sure = rng.integers(0, 9, 80) / 8 if request.param == "votes" else rng.random(80)
    right = (rng.random(80) < sure**2).astype(float)
    counts = np.stack([np.ones(80), *rng.multinomial(80, np.full(80, 1 / 80), size=2)]).astype(float)
    return sure, right, counts


def drawn(sample):
    """Yield the resamples as plain lists of items."""
    sure, right, counts = sample
    for row in counts:
        taken = np.repeat(np.arange(len(row)), row.astype(int))
        yield sure[taken], right[taken]


def test_auroc_and_nll_as_scikit_learn_has_them(sample):
    sure, right, counts = sample
    found = calibration(sure, right)(counts)
    for draw, (confidence, correct) in enumerate(drawn(sample)):
        assert found["auroc"][draw] == pytest.approx(roc_auc_score(correct, confidence))
        assert auroc(sure, right)(counts)[draw] == pytest.approx(roc_auc_score(correct, confidence))
        floored = np.clip(confidence, FLOOR, 1 - FLOOR)
        assert found["nll"][draw] == pytest.approx(log_loss(correct, floored))


def test_brier_and_its_parts_by_a_plain_loop(sample):
    sure, right, counts = sample
    found = calibration(sure, right)(counts)
    for draw, (confidence, correct) in enumerate(drawn(sample)):
        rate = correct.mean()
        reliability = resolution = biggest = 0.0
        for low in range(15):
            inside = (confidence >= low / 15) & ((confidence < (low + 1) / 15) | (low == 14))
            if inside.any():
                gap = abs(confidence[inside].mean() - correct[inside].mean())
                reliability += inside.mean() * gap**2
                resolution += inside.mean() * (correct[inside].mean() - rate) ** 2
                biggest = max(biggest, gap)
        parts = {"reliability": reliability, "resolution": resolution, "uncertainty": rate * (1 - rate)}
        parts |= {"mce": biggest, "brier": np.mean((confidence - correct) ** 2)}
        parts |= {"ece": expected_calibration_error(confidence, correct), "overconfidence": np.mean(confidence) - rate}
        for name, value in parts.items():
            assert found[name][draw] == pytest.approx(value), name


def test_with_one_confidence_a_bin_the_parts_make_up_brier():
    rng = np.random.default_rng(1)
    sure = rng.integers(0, 9, 200) / 8
    right = (rng.random(200) < sure).astype(float)
    found = calibration(sure, right)(np.ones((1, 200)))
    made_up = found["reliability"] - found["resolution"] + found["uncertainty"]
    assert made_up == pytest.approx(found["brier"])


def test_risk_and_coverage_by_a_plain_loop(sample):
    sure, right, counts = sample
    for draw, (confidence, correct) in enumerate(drawn(sample)):
        risks = [1 - correct[confidence >= each].mean() for each in confidence]
        assert aurc(sure, right)(counts)[draw] == pytest.approx(np.mean(risks))


def test_the_surer_the_righter_gives_the_least_area():
    right = np.array([1.0] * 6 + [0.0] * 2)
    sure = np.linspace(1, 0.1, 8)
    best, worst = (aurc(values, right)(np.ones((1, 8)))[0] for values in (sure, -sure))
    assert best == pytest.approx((1 / 7 + 2 / 8) / 8)
    assert best < worst
    assert auc([0, 1], [best, best]) == pytest.approx(best)


def test_nothing_is_told_apart_where_all_answers_are_right():
    found = calibration(np.array([0.2, 0.9]), np.ones(2))(np.ones((1, 2)))
    assert np.isnan(found["auroc"][0])
    assert found["resolution"][0] == found["uncertainty"][0] == 0


def test_a_tie_counts_as_the_share_of_its_leaders_that_are_right():
    halves = calibration(np.array([0.5, 0.9, 0.1]), np.array([0.5, 1.0, 0.0]))(np.ones((1, 3)))
    assert halves["auroc"][0] == pytest.approx((1 * 1.5 + 0.5 * (0.5 / 2 + 1)) / (1.5 * 1.5))


@pytest.mark.parametrize("j", [1, 2, 3, 5])
def test_pass_at_j_is_the_mean_over_all_choices_of_j_samples(j):
    rng = np.random.default_rng(2)
    answers = rng.random((7, 5)) < 0.3
    chances = [np.mean([row[list(some)].any() for some in combinations(range(5), j)]) for row in answers]
    measure = pass_at(answers.sum(1), 5, j)
    assert measure(np.ones((1, 7)))[0] == pytest.approx(np.mean(chances))
    assert measure(np.eye(7)) == pytest.approx(chances)


def test_a_ratio_of_sums_weighs_by_what_each_question_holds():
    assert mean([1, 2], [1, 4])(np.array([[1.0, 1.0], [2.0, 0.0]])).tolist() == [3 / 5, 1.0]
    assert np.isnan(mean([1.0])(np.zeros((1, 1)))[0])


def test_bins_of_equal_mass_are_equal_but_for_ties():
    rng = np.random.default_rng(3)
    counts = np.bincount(equal_mass_index(rng.random(150)), minlength=15)
    assert counts.min() >= 9
    assert counts.max() <= 11
    few = equal_mass_index(np.repeat([0.0, 0.5, 1.0], 50))
    assert [len(set(few[start : start + 50])) for start in (0, 50, 100)] == [1, 1, 1]
    assert len(set(few)) >= 2


def test_a_calibrated_model_of_few_questions_shows_an_error_and_of_many_hardly_any():
    rng = np.random.default_rng(4)
    few, many = (calibrated_errors(rng.random(n), 300, seed=0) for n in (30, 20_000))
    assert few.shape == (300,)
    assert few.mean() > 0.1
    assert many.mean() < 0.01
    assert calibrated_errors(np.ones(30), 10, seed=0).tolist() == [0.0] * 10
    sure = rng.random(60)
    drawn = [expected_calibration_error(sure, rng.random(60) < sure) for _ in range(2_000)]
    assert calibrated_errors(sure, 2_000, seed=1).mean() == pytest.approx(np.mean(drawn), rel=0.03)
