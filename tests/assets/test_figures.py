"""Key figures are single finite numbers, and every artifact has a picture."""

import pytest

from assets.figures import key_figures
from pipeline.stage import resolve
from pipeline.stages import STAGES, stage_of

PNG = b"\x89PNG\r\n\x1a\n"


def test_numbers_of_tables_and_within_notes_have_names_of_their_own(run, put):
    notes = {
        "lift": {"mean": 0.25, "all": {"low": 1, "said": "no"}},
        "ok": {"yes": True},
        "n": 3,
        "nan": {"x": float("nan")},
    }
    rows = [{"state": "majority", "vote_share": 1.0}, {"state": "tie", "vote_share": 0.5}]
    votes = put(run, "pseudo_labels", notes=notes, pseudo_labels=rows)
    expected = {
        "lift/mean": 0.25,
        "lift/all/low": 1,
        "majority_share": 0.5,
        "mean_vote_share": 0.75,
        "mean_entropy": 0.0,
    }
    assert key_figures(votes) == expected


def test_an_empty_table_has_no_figures(run, put):
    assert key_figures(put(run, "rival_adapter", notes={"skipped": "no"}, training_log=[])) == {}
    assert key_figures(put(run, "context_beliefs", context_beliefs=[], context_rollouts=[])) == {}


def test_figures_of_both_tests_and_of_every_model_are_told_apart(run, put):
    responses = [
        {"response_ids": [1, 2], "finish_reason": "stop"},
        {"response_ids": [1] * 4, "finish_reason": "length"},
    ]
    made = put(
        run,
        "base_predictions",
        in_domain=responses,
        out_of_domain=responses[:1],
        in_domain_p_true=[],
        out_of_domain_p_true=[],
    )
    figures = key_figures(made)
    assert (figures["in_domain/mean_response_tokens"], figures["in_domain/truncated_share"]) == (3.0, 0.5)
    assert (figures["out_of_domain/mean_response_tokens"], figures["out_of_domain/truncated_share"]) == (2.0, 0.0)
    metrics = [
        {"split": "in_domain", "metric": metric, "model": "sft", "value": 0.5} for metric in ("avg_at_k", "mce_vote")
    ]
    assert key_figures(put(run, "evaluation", predictions=[], metrics=metrics)) == {"in_domain/avg_at_k/sft": 0.5}


def test_every_artifact_has_a_picture():
    drawn = {
        name: spec.plot if name == spec.name else spec.companions[name].plot
        for spec in STAGES
        for name in spec.artifacts
    }
    assert [name for name, plot in drawn.items() if plot is None or not callable(resolve(plot))] == []


@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("gold_labels", {"gold_labels": [{"gold_index": None}, {"gold_index": 1}, {"gold_index": 1}]}),
        ("test_labels", {"in_domain": [{"gold_index": 0}], "out_of_domain": []}),
        ("tests", {"in_domain": [{"domain": ""}, {"domain": "law"}], "out_of_domain": []}),
        ("merged_model", {"merged_model": [{"tensor": "w", "norm": 2.0}]}),
    ],
)
@pytest.mark.parametrize("is_empty", [False, True])
def test_pictures_of_labels_tests_and_models(run, put, name, tables, is_empty):
    artifact = put(run, name, **{table: [] if is_empty else rows for table, rows in tables.items()})
    spec = stage_of(name)
    draw = resolve(spec.plot if name == spec.name else spec.companions[name].plot)
    assert draw(artifact).startswith(PNG)
