import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluation.calibration import bin_index, expected_calibration_error

# Vote shares sit exactly on bin edges, so they are drawn on purpose.
probability = st.floats(0, 1) | st.integers(0, 30).map(lambda votes: votes / 30)
pairs = st.lists(st.tuples(probability, st.booleans()), min_size=1, max_size=60)


def naive_ece(confidence, correct, n_bins):
    total = 0.0
    for b in range(n_bins):
        low, high = b / n_bins, (b + 1) / n_bins
        inside = [i for i, c in enumerate(confidence) if low <= c < high or (b == n_bins - 1 and c == high)]
        if inside:
            mean_confidence = sum(confidence[i] for i in inside) / len(inside)
            accuracy = sum(correct[i] for i in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(accuracy - mean_confidence)
    return total


@given(pairs, st.integers(1, 20))
def test_ece_equals_the_definition(items, n_bins):
    confidence, correct = zip(*items, strict=True)
    assert expected_calibration_error(confidence, correct, n_bins) == pytest.approx(
        naive_ece(confidence, correct, n_bins), abs=1e-12
    )


def test_last_bin_is_closed_and_edges_open_the_next_bin():
    assert bin_index(np.array([0.0, 1 / 15, 3 / 5, 0.999, 1.0, 1.0 + 1e-7])).tolist() == [0, 1, 9, 14, 14, 14]
    assert expected_calibration_error([1.0, 1.0], [1, 0]) == 0.5
    # 0.95 and 1.0 share the last of 15 bins, where over- and underconfidence cancel.
    assert expected_calibration_error([0.95, 1.0], [1, 0.95]) == pytest.approx(0.0)


def test_perfect_calibration_gives_about_zero_and_confident_errors_give_one():
    rng = np.random.default_rng(0)
    confidence = rng.random(200_000)
    assert expected_calibration_error(confidence, rng.random(200_000) < confidence) < 0.01
    assert expected_calibration_error([1.0] * 5, [0] * 5) == 1.0
