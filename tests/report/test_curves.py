import numpy as np
import polars as pl
import pytest

from pipeline.evaluation.calibration import expected_calibration_error
from pipeline.evaluation.measures import aurc
from pipeline.report.curves import reliability_bins, risk_curve

RNG = np.random.default_rng(0)
TABLE = pl.DataFrame({"confidence": RNG.integers(0, 6, 200) / 5, "correct": RNG.integers(0, 3, 200) / 2})
SURE, RIGHT = TABLE["confidence"].to_numpy(), TABLE["correct"].to_numpy()


def test_the_bins_drawn_are_those_of_the_calibration_error():
    bins = reliability_bins(TABLE, "m")
    assert bins["n"].sum() == 200
    gaps = (bins["confidence"] - bins["right"]).abs() * bins["n"]
    assert gaps.sum() / 200 == pytest.approx(expected_calibration_error(SURE, RIGHT))


def test_the_curve_drawn_is_the_one_whose_area_is_told():
    curve = risk_curve(TABLE, "m")
    assert (curve["coverage"][-1], curve.height) == (1, 6)
    steps = np.diff(curve["coverage"].to_numpy(), prepend=0)
    assert (curve["risk"].to_numpy() * steps).sum() == pytest.approx(aurc(SURE, RIGHT)(np.ones((1, 200)))[0])


def test_a_long_curve_is_thinned_and_keeps_its_ends():
    table = pl.DataFrame({"confidence": np.linspace(0, 1, 500), "correct": np.ones(500)})
    curve = risk_curve(table, "m", n_points=50)
    assert curve.height == 50
    assert (curve["coverage"][0], curve["coverage"][-1]) == (1 / 500, 1)
