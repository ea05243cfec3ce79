"""Figures over worlds and seeds, against plain loops and where the truth is known."""

import numpy as np
import polars as pl
import pytest

from pipeline.errors import CurationError
from pipeline.evaluation.schemas import PREDICTIONS
from pipeline.study.config import StudyConfig
from pipeline.study.figures import Answers
from pipeline.study.report import forest, write_report
from pipeline.study.run import Cell

ARMS = [{"name": "untouched", "of": "base"}, {"name": "better"}, {"name": "same"}]


def study(seeds=(0, 1, 2), worlds=("0", "1"), **changes):
    values = {"name": "s", "arms": ARMS, "against": ["untouched"], "n_resamples": 400, "seeds": list(seeds)}
    return StudyConfig.model_validate({**values, "worlds": [{"name": world} for world in worlds], **changes})


def answers(rng, skill, k=4):
    """Graded samples of both tests; questions of different difficulty, ``skill`` easier."""
    rows = []
    for split, n in (("in_domain", 40), ("out_of_domain", 25)):
        for number in range(n):
            p = np.clip((number + 0.5) / n + (skill if split == "in_domain" else 0), 0, 1)
            for sample in range(k):
                index = int(rng.random() > p)
                rows.append(
                    {
                        "model": "m",
                        "split": split,
                        "id": f"{split}{number:03}",
                        "sample": sample,
                        "answer": f"option {index}",
                        "answer_index": index,
                        "gold_index": 0,
                        "correct": index == 0,
                        "option_probs": [p, 1 - p],
                    }
                )
    return pl.DataFrame(rows, schema=pl.DataFrame(PREDICTIONS.empty_table()).schema)


@pytest.fixture(scope="module")
def graded():
    rng = np.random.default_rng(0)
    skills = {"untouched": 0.0, "better": 0.25, "same": 0.0}
    return {
        Cell(arm, world, seed): answers(rng, skill)
        for arm, skill in skills.items()
        for world in ("0", "1")
        for seed in (0, 1, 2)
    }


@pytest.fixture(scope="module")
def figures(graded):
    return Answers(study(), graded).figures()


def row(figures, arm, metric="avg_at_k", split="in_domain", against=None):
    found = figures.filter(
        (pl.col("arm") == arm)
        & (pl.col("metric") == metric)
        & (pl.col("split") == split)
        & pl.col("against").eq_missing(pl.lit(against))
    )
    return found.row(0, named=True)


def test_values_are_means_over_worlds_and_seeds_and_cells_hold_each_run(graded, figures):
    cells = Answers(study(), graded).cells()
    for arm in ("untouched", "better", "same"):
        each = [
            graded[cell].filter(pl.col("split") == "in_domain")["correct"].mean() for cell in graded if cell.arm == arm
        ]
        assert row(figures, arm)["value"] == pytest.approx(np.mean(each))
        stored = cells.filter(
            (pl.col("arm") == arm) & (pl.col("metric") == "avg_at_k") & (pl.col("split") == "in_domain")
        )
        assert sorted(stored["value"]) == pytest.approx(sorted(each))
        assert (stored["n"].unique().to_list(), stored["k"].unique().to_list()) == ([40], [4])
    assert (row(figures, "same")["n"], row(figures, "same")["seeds"], row(figures, "same")["worlds"]) == (80, 3, 2)


def test_a_better_arm_is_told_from_one_that_is_the_same(figures):
    better, same = (row(figures, arm, against="untouched") for arm in ("better", "same"))
    assert better["low"] > 0.1
    assert better["p"] <= better["p_adjusted"] <= 0.05
    assert same["low"] < 0 < same["high"]
    assert same["p_adjusted"] > 0.05
    gap = row(figures, "better")["value"] - row(figures, "untouched")["value"]
    assert better["value"] == pytest.approx(gap)
    assert row(figures, "better")["p"] is None


def test_kept_means_within_the_margin_and_is_said_out_of_domain_only(graded):
    def said(margin):
        found = Answers(study(margin=margin), graded).figures()
        assert found.filter(pl.col("split") == "in_domain")["is_equivalent"].null_count() == len(
            found.filter(pl.col("split") == "in_domain")
        )
        return row(found, "same", split="out_of_domain", against="untouched")["is_equivalent"]

    assert said(0.5) is True
    assert said(0.001) is False


def test_intervals_are_those_of_drawing_seeds_and_questions_one_by_one(graded, figures):
    rng = np.random.default_rng(1)
    shares = {
        world: np.stack(
            [
                graded[Cell("better", world, seed)]
                .filter(pl.col("split") == "in_domain")
                .group_by("id")
                .agg(pl.col("correct").mean())
                .sort("id")["correct"]
                .to_numpy()
                for seed in (0, 1, 2)
            ]
        )
        for world in ("0", "1")
    }
    values = []
    for _ in range(3_000):
        drawn = []
        for table in shares.values():
            questions = rng.integers(table.shape[1], size=table.shape[1])
            drawn.append(np.mean([table[seed, questions].mean() for seed in rng.integers(3, size=2)]))
        values.append(np.mean(drawn))
    found = row(figures, "better")
    assert [found["low"], found["high"]] == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.012)


def test_order_of_cells_and_other_arms_change_nothing(graded, figures):
    turned = Answers(study(), dict(reversed(graded.items()))).figures()
    assert turned.equals(figures)
    two = study(arms=ARMS[:2])
    fewer = Answers(two, {cell: table for cell, table in graded.items() if cell.arm != "same"}).figures()
    for name in ("value", "low", "high", "p"):
        assert row(fewer, "better", against="untouched")[name] == row(figures, "better", against="untouched")[name]


def test_other_questions_are_refused(graded):
    cell = Cell("better", "1", 2)
    with pytest.raises(CurationError, match="other in_domain questions"):
        Answers(study(), graded | {cell: graded[cell].filter(pl.col("id") != "in_domain003")})


def test_report_and_picture_show_every_arm_and_what_is_missing(graded, figures):
    text = write_report(study(title="Which is best?"), figures, {"better, 0, 1": "no memory"}, "python -m x")
    for part in ("Which is best?", "## Better in its domain than untouched?", "## The rest kept?", "no memory"):
        assert part in text
    for part in ("## Surer than it should be?", "## Calibration by vote share", "in-domain AUROC", "in-domain pass@k"):
        assert part in text
    assert all(text.count(arm["name"]) >= 4 for arm in ARMS)
    assert "python -m x" in text
    assert "## Cost" not in text
    assert forest(study(), figures).startswith(b"\x89PNG")


def section(text, title):
    """Return the rows of a section's table by arm, cells by column."""
    lines = [line for line in text.split(f"## {title}\n")[1].split("\n## ")[0].splitlines() if line.startswith("|")]
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


def test_each_claim_is_answered(graded):
    wide = study(against=["untouched", "same"], margin=0.5)
    text = write_report(wide, Answers(wide, graded).figures(), {}, "x")
    gains = section(text, "Better in its domain than untouched?")
    assert {arm: row["better"] for arm, row in gains.items()} == {"better": "yes", "same": "cannot tell"}
    assert {row["kept"] for row in section(text, "The rest kept?").values()} == {"yes"}
    cheap = section(text, "Better than same?")
    assert {arm: row["better"] for arm, row in cheap.items()} == {"better": "yes", "untouched": "cannot tell"}
    sure = section(text, "Surer than it should be?")
    assert set(sure) == {"untouched", "better", "same"}
    assert all(row["vote share: surer"] in ("yes", "no", "cannot tell") for row in sure.values())


def test_costs_are_means_over_worlds_and_seeds_beside_the_figures(graded, figures):
    amounts = {
        "processor_seconds": 1000.0,
        "seconds": 2.0,
        "read_tokens": 30.0,
        "generated_tokens": 4.0,
        "trained_tokens": 5.0,
    }
    costs = {
        cell: {name: value * (1 + cell.seed) * (cell.arm != "untouched") for name, value in amounts.items()}
        for cell in graded
    }
    costs = {
        cell: cost | {f"training_{name}": value / 2 for name, value in cost.items()} for cell, cost in costs.items()
    }
    told = Answers(study(), graded, costs)
    assert told.figures().drop_nulls("split").equals(figures)
    cells = told.cells().filter(pl.col("split").is_null(), pl.col("metric") == "training_seconds")
    assert cells.filter(pl.col("arm") == "same")["value"].to_list() == [1, 2, 3] * 2
    spent = told.figures().filter(pl.col("split").is_null(), pl.col("metric") == "seconds")
    better = spent.filter(pl.col("arm") == "better", pl.col("against").is_null()).row(0, named=True)
    assert [better[name] for name in ("value", "n")] == [pytest.approx(4), None]
    assert 2 <= better["low"] < 4 < better["high"] <= 6
    text = write_report(study(), told.figures(), {}, "x")
    assert section(text, "Cost")["better"] == {
        "arm": "better",
        "processor s": "2,000 (1,000)",
        "seconds": "4 (2)",
        "tokens read": "60 (30)",
        "generated": "8 (4)",
        "trained on": "10 (5)",
    }
    one = Cell("same", "0", 2)
    unknown = Answers(study(), graded, costs | {one: {}}).figures()  # a stage of one cell is not in the ledger
    assert set(section(write_report(study(), unknown, {}, "x"), "Cost")) == {"untouched", "better"}
