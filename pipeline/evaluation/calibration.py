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


def bin_index(confidence: Floats, n_bins: int = N_BINS) -> npt.NDArray[np.intp]:
    """Return the bin of each confidence: [i/n_bins, (i+1)/n_bins), the last one closed at 1."""
    # Edges as quotients, so that a vote share such as 3/5 falls exactly on the edge 9/15.
    return np.digitize(confidence, np.arange(1, n_bins) / n_bins)
