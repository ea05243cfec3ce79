"""How well confidences match outcomes: pure functions on arrays.

``confidence`` [n] lies in [0, 1]; ``correct`` [n] is 0 or 1, or an expected value between them.
"""

import numpy as np
import numpy.typing as npt

N_BINS = 15
"""Equal-width bins of the calibration error; 15 as in Guo et al., arXiv 1706.04599."""
Floats = npt.NDArray[np.float64]


def expected_calibration_error(confidence: npt.ArrayLike, correct: npt.ArrayLike, n_bins: int = N_BINS) -> float:
    """Return the mean over items, of which there must be some, of their bin's |mean confidence - mean correct|."""
    sure, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    gaps = np.bincount(bin_index(sure, n_bins), weights=sure - right, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(sure))


def calibrated_errors(confidence: npt.ArrayLike, n_draws: int, seed: int) -> Floats:
    """Return calibration errors [n_draws] of a perfectly calibrated model with these confidences.

    Outcomes are drawn with the confidences as probabilities: what is then left of the error is due to the number of
    questions alone.
    """
    sure = np.asarray(confidence, dtype=np.float64)
    member = bin_index(sure)[:, None] == np.arange(N_BINS)
    outcomes = np.random.default_rng(seed).random((n_draws, len(sure))) < sure
    return np.abs((sure - outcomes) @ member).sum(1) / len(sure)


def equal_mass_index(confidence: Floats, n_bins: int = N_BINS) -> npt.NDArray[np.intp]:
    """Return the bin of each confidence, of bins with as equal numbers as ties allow: equal confidences share a bin."""
    edges = np.quantile(confidence, np.arange(1, n_bins) / n_bins, method="higher")
    return np.digitize(confidence, np.unique(edges))


def bin_index(confidence: Floats, n_bins: int = N_BINS) -> npt.NDArray[np.intp]:
    """Return the bin of each confidence: [i/n_bins, (i+1)/n_bins), the last one closed at 1."""
    # Edges as quotients, so that a vote share such as 3/5 falls exactly on the edge 9/15.
    return np.digitize(confidence, np.arange(1, n_bins) / n_bins)
