import json
import re
import subprocess
import sys

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from told_run import HOSTILE

from pipeline.errors import CurationError
from pipeline.evaluation.schemas import PREDICTIONS
from pipeline.paths import PROJECT_ROOT
from pipeline.report.page import render
from pipeline.report.study_page import study_page
from pipeline.study.config import StudyConfig
from pipeline.study.figures import Answers
from pipeline.study.run import Cell
from pipeline.study.schemas import CELLS, FIGURES
from pipeline.table import conform

RIGHT = {"untouched": (20, 30), "distilled": (35, 30), "forgetful": (20, 5)}
"""Of 40 questions in and out of the domain."""


def graded(arm, seed):
    rng = np.random.default_rng(seed)
    rows = [
        {"model": arm, "split": split, "id": f"{q:02}", "sample": s, "answer": "a", "answer_index": 0, "gold_index": 0,
         "correct": bool((q + 7) % 40 < right + rng.integers(2)), "option_probs": [0.8, 0.2]}
        for split, right in zip(("in_domain", "out_of_domain"), RIGHT[arm], strict=True)
        for q in range(40)
        for s in range(2)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=pl.DataFrame(PREDICTIONS.empty_table()).schema)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Results of a study of three arms under two seeds, with its file beside them."""
    arms = [{"name": arm, "set": ["a.b=1"]} for arm in RIGHT]
    told = {"name": "trial", "title": HOSTILE, "arms": arms, "seeds": [0, 1], "against": ["untouched", "forgetful"]}
    study = StudyConfig.model_validate(told | {"n_resamples": 200})
    answers = Answers(study, {Cell(arm, "0", seed): graded(arm, seed) for arm in RIGHT for seed in study.seeds})
    folder = tmp_path_factory.mktemp("studies") / "trial"
    folder.mkdir()
    pq.write_table(conform(answers.figures(), FIGURES, "figures"), folder / "figures.parquet")
    pq.write_table(conform(answers.cells(), CELLS, "cells"), folder / "cells.parquet")
    folder.with_name("trial.yaml").write_text(json.dumps(told))
    return folder


def test_a_study_is_judged_in_words_and_shown_arm_by_arm(folder):
    html = render(study_page(folder, n_rows=10))
    verdict = re.search(r'<p class="verdict">([^<]*)', html)[1]
    assert verdict.startswith(
        "3 arms on 1 worlds under 2 seeds, 40 questions in-domain and 40 questions out-of-domain."
    )
    assert (
        "Against untouched, 1 of 2 arms answer more questions of the domain right (most of all distilled, +3" in verdict
    )
    assert verdict.endswith("1 of 2 arms are kept within the margin (distilled); 1 certainly lost (forgetful).")
    titles = re.findall(r"<h2[^>]*>(?:<span[^>]*>\d+</span>)?([^<]+)</h2>", html)
    assert titles[:3] == ["Result", "Against untouched", "Against forgetful"]
    first = re.search(r'<th scope="row">(\w+)</th>', html)[1]
    assert first == "distilled"  # the best in its domain
    n_figures = pl.read_parquet(folder / "figures.parquet").height
    assert f"{n_figures - 10:,} of {n_figures:,} figures are left out" in html
    assert html.count("<script") == 3 + HOSTILE.count("<script") - 1


def test_without_its_file_a_study_still_shows(folder, tmp_path):
    (tmp_path / "trial").mkdir()
    for name in ("figures.parquet", "cells.parquet"):
        (tmp_path / "trial" / name).write_bytes((folder / name).read_bytes())
    assert "Arms and worlds" not in render(study_page(tmp_path / "trial", n_rows=10))


def test_what_is_missing_is_named_with_the_remedy(folder, tmp_path):
    command = [sys.executable, "-m", "pipeline.report", "--study", str(tmp_path)]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"error: {tmp_path / 'figures.parquet'} is not there: make the study first" in done.stderr
    pl.read_parquet(folder / "figures.parquet").drop("p_adjusted").write_parquet(tmp_path / "figures.parquet")
    with pytest.raises(CurationError, match="lacks the columns p_adjusted"):
        study_page(tmp_path, n_rows=10)


def test_a_study_fits_a_phone(folder, browser, tmp_path):
    path = tmp_path / "study.html"
    path.write_text(render(study_page(folder, n_rows=10)), encoding="utf-8")
    page, said = browser.new_page(viewport={"width": 360, "height": 780}), []
    page.on("console", lambda message: said.append(message.text))
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-drawn]")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("[data-plot] svg").count() == page.locator("[data-plot]").count() >= 8
    assert said == []
