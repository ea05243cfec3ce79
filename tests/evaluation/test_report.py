import numpy as np
import polars as pl
import pytest

from pipeline.errors import CurationError
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.metrics import summarise
from pipeline.evaluation.report import reliability_diagram, render_table, write_report
from pipeline.evaluation.schemas import PREDICTIONS
from pipeline.plots import histogram

CONFIG = EvaluationConfig(n_resamples=200, seed=7)
PNG = b"\x89PNG\r\n"


def row(model, split, question, sample, right, letters=True):
    return {
        "model": model,
        "split": split,
        "id": f"q{question}",
        "sample": sample,
        "answer": "yes" if right else "no",
        "answer_index": int(not right),
        "gold_index": 0,
        "correct": right,
        "option_probs": ([0.95, 0.05] if right else [0.05, 0.95]) if letters else None,
    }


METHODS = {
    "sft": "fine-tuning on votes. The base model, fine-tuned.",
    "distilled": "distillation. The base model, trained.",
}


def all_models(splits=("in_domain", "out_of_domain"), letters=True, rival="sft", ceiling=None):
    """Untouched is right on 10 of 20 questions, its rival on 16, distilled on 15, a ceiling on 20, two samples each."""
    rows = [
        row(model, split, q, s, q < right, letters)
        for model, right in (("untouched", 10), (rival, 16), ("distilled", 15), (ceiling, 20))
        if model
        for split in splits
        for q in range(20)
        for s in range(2)
    ]
    return pl.DataFrame(rows, schema=pl.DataFrame(PREDICTIONS.empty_table()).schema)


def test_table_has_a_row_per_figure_and_a_column_per_model():
    lines = render_table(summarise(all_models(), CONFIG)).splitlines()
    assert len(lines) == 2 + 2 * 6
    assert len({len(line) for line in lines}) == 1
    columns = ["untouched", "sft", "distilled", "distilled - untouched", "distilled - sft", "n"]
    assert [cell.strip() for cell in lines[0].split("|")[2:-1]] == columns
    cells = [cell.strip() for cell in lines[2].split("|")[1:-1]]
    assert cells[0] == "In-domain accuracy (Avg@2), %"
    assert [cell.split()[0] for cell in cells[1:]] == ["50.0", "80.0", "75.0", "+25.0", "-5.0", "20"]
    ece = next(line for line in lines if "In-domain ECE, option probability, mean over samples" in line)
    assert len(ece.split("|")[2].split()[0]) == len("0.000")


def test_table_marks_figures_that_one_model_lacks():
    table = all_models(("in_domain",))
    without = pl.when(pl.col("model") == "distilled").then(None).otherwise(pl.col("option_probs"))
    metrics = summarise(table.with_columns(option_probs=without), CONFIG)
    ece = next(line for line in render_table(metrics).splitlines() if "ECE, option probability" in line)
    assert [cell.strip() for cell in ece.split("|")[4:7]] == ["-", "-", "-"]


def test_report_stands_on_its_own():
    table = all_models()
    provenance = {"command": "evaluate --seed 7", "evaluation": CONFIG.model_dump(), "model": "abc"}
    text = write_report(summarise(table, CONFIG), table, provenance, METHODS)
    for part in (
        "# Evaluation report",
        render_table(summarise(table, CONFIG)),
        "- In-domain accuracy (Avg@2), %: distilled is above untouched; difference +25.0 [",
        "- In-domain accuracy (Avg@2), %: distilled and sft show no difference that these questions could tell from "
        "chance; difference -5.0 [",
        "- Out-of-domain ECE, option probability, mean over samples: distilled is below untouched; difference",
        "n = 20 questions, k = 2 samples each, seed 7",
        '"confidence_level": 0.95',
        "- model: abc",
        "```\nevaluate --seed 7\n```",
        "percentile bootstrap",
        "- *untouched*, the untouched model.\n",
        "- *sft*, the model trained by the rival method: fine-tuning on votes. The base model, fine-tuned.\n",
        "- *distilled*, the distilled model: distillation. The base model, trained.\n- Avg@k",
        "## Caveats",
        "| In-domain | untouched | 100.0 | 100.0 |",
    ):
        assert part in text


def test_another_rival_and_a_ceiling_stand_in_table_and_report_under_their_names():
    rival, ceiling = "grpo (self_certainty)", "ceiling (gold)"
    table = all_models(("in_domain",), rival=rival, ceiling=ceiling)
    metrics = summarise(table, CONFIG)
    lines = render_table(metrics).splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[2:-1]] == [
        *("untouched", rival, "distilled", ceiling),
        *("distilled - untouched", f"distilled - {rival}", f"{ceiling} - distilled", "n"),
    ]
    assert [cell.split()[0] for cell in lines[2].split("|")[2:-1]] == "50.0 80.0 75.0 100.0 +25.0 -5.0 +25.0 20".split()
    text = write_report(metrics, table, {}, {rival: "reinforcement.", ceiling: "distillation from gold answers."})
    for part in (
        f"accuracy (Avg@2), %: distilled and {rival} show no difference",
        f"accuracy (Avg@2), %: {ceiling} is above distilled; difference +25.0 [",
        f"- *{rival}*, the model trained by the rival method: reinforcement.",
        f"- *{ceiling}*, the model distilled from gold answers (a ceiling): distillation from gold answers.",
        f"| In-domain | {ceiling} | 100.0 | 100.0 |",
    ):
        assert part in text
    assert "sft" not in text


def test_report_claims_no_change_when_the_interval_includes_zero():
    table = all_models(("in_domain",), letters=False)
    same = table.filter(pl.col("model") == "untouched")
    table = pl.concat([same, same.with_columns(model=pl.lit("distilled"))])
    text = write_report(summarise(table, CONFIG), table, {}, METHODS)
    assert "In-domain accuracy (Avg@2), %: distilled and untouched show no difference" in text
    assert "In-domain ECE, vote share: distilled and untouched show no difference" in text
    assert "sft show" not in text
    assert "No comparison" in write_report(summarise(same, CONFIG), same, {}, {})


@pytest.mark.parametrize("letters", [True, False])
def test_reliability_diagram_is_the_same_bytes_each_time(letters):
    table = all_models(letters=letters, ceiling="ceiling (gold)")
    image = reliability_diagram(table)
    assert image.startswith(PNG)
    assert image == reliability_diagram(table.reverse())
    for model in ("untouched", "sft", "distilled", "ceiling (gold)"):
        assert image != reliability_diagram(table.filter(pl.col("model") != model))


def test_reliability_diagram_needs_in_domain_predictions():
    with pytest.raises(CurationError, match="in_domain"):
        reliability_diagram(all_models(("out_of_domain",)))


def test_histogram_is_the_same_bytes_each_time_and_takes_odd_data():
    values = np.arange(10) / 3
    assert histogram(values, "sizes", "neurons").startswith(PNG)
    assert histogram(values, "sizes", "neurons") == histogram(list(values), "sizes", "neurons")
    for odd in ([], [1.0, 1.0], [float("nan"), 2.0], pl.Series([1, None, 3])):
        assert histogram(odd, "sizes", "neurons").startswith(PNG)
