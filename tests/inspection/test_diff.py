"""What differs between two runs, why, and what does not."""

import json

import polars as pl
import pytest

from pipeline.inspection.__main__ import main
from pipeline.inspection.diff import diff

IDS = ["a0aaaaaa", "b1bbbbbb", "c2cccccc", "d3dddddd"]
"""Of the questions of the runs (conftest.py), the last of them left out of the pool."""
TEST = "e4eeeeee"


def test_artifacts_are_the_same_or_other_for_a_reason(runs):
    found = diff(*runs)["artifacts"]
    assert {name for name, told in found.items() if told["same"]} == {
        *("raw_pool", "quarantine", "pool", "tests", "answers", "pseudo_labels")
    }
    assert found["curated_subset"]["settings"] == {"rule": ["confident_shift", "random"]}
    assert found["teacher_contexts"]["because"] == ["inputs: curated_subset"]
    assert found["teacher_contexts"]["rows"] == {"teacher_contexts": [1, 1]}


def test_code_libraries_and_files_are_named(run, put, tmp_path):
    other = run.store.run("other")
    for one, code, version, files in ((run, "x", "1", [["a", "0"]]), (other, "y", "2", [["a", "1"], ["b", "0"]])):
        provenance = {"stage": "pool", "code": code, "libraries": {"polars": version, "same": "1"}, "sources": files}
        with one.store.write("pool", code, {"seed": version}, provenance) as writer:
            writer.notes = {}
        one.show("pool", code)
    told = diff(run, other)["artifacts"]["pool"]
    assert told["because"] == ["code", "libraries: polars 1 -> 2", "sources: a, b"]
    assert (told["same_content"], told["settings"]) == (True, {"seed": ["1", "2"]})


def test_questions_chosen_and_contexts_in_one_run_alone(runs):
    tables = {table["table"]: table for table in diff(*runs)["tables"]}
    chosen = tables["curated_subset"]
    assert chosen["true_in_first_only"] == {"selected": [IDS[0]]}
    assert chosen["true_in_second_only"] == {"selected": [IDS[1]]}
    assert chosen["rows_that_differ"] == {"selected": 2}
    contexts = tables["teacher_contexts"]
    assert (contexts["only_first"], contexts["only_second"]) == ([IDS[0]], [IDS[1]])
    assert set(tables) == {"curated_subset", "teacher_contexts", "predictions"}
    assert tables["predictions"]["true_in_second_only"] == {"correct": [TEST]}


def test_a_run_differs_in_nothing_from_itself(runs):
    found = diff(runs[0], runs[0])
    assert all(told["same"] for told in found["artifacts"].values())
    assert found["tables"] == []
    assert {row["difference"] for row in found["evaluation"]} == {0.0}


def test_figures_stand_side_by_side_with_their_paired_difference(run, put):
    """Against a plain paired bootstrap of the shared questions."""
    other = run.store.run("other")
    right = {"first": [0, 1, 0, 1, 1, 0, 1, 0], "second": [1, 1, 0, 1, 1, 1, 0, 1]}
    for one, name in ((run, "first"), (other, "second")):
        graded = [
            {"model": "distilled", "split": "in_domain", "id": f"q{n}", "sample": 0, "correct": bool(is_right)}
            for n, is_right in enumerate([*right[name], 1][: 9 if name == "second" else 8])
        ]
        put(one, "evaluation", predictions=graded)
    figures = {row["metric"]: row for row in diff(run, other)["evaluation"]}
    row = figures["avg_at_k"]
    assert [row[key] for key in ("first", "second", "difference", "n")] == [0.5, 0.75, 0.25, 8]
    gaps = pl.Series([b - a for a, b in zip(right["first"], right["second"], strict=True)])
    drawn = [gaps.sample(8, with_replacement=True, seed=seed).mean() for seed in range(2_000)]
    expected = [pl.Series(drawn).quantile(q, "linear") for q in (0.025, 0.975)]
    assert [row["low"], row["high"]] == pytest.approx(expected, abs=0.126)  # a resample moves in steps of 1/8


def test_the_command_line_shows_text_and_one_json_document(runs, capsys):
    root = str(runs[0].store.root)
    assert main(["diff", "first", "second", "--store", root]) == 0
    text = capsys.readouterr().out
    for part in (
        "second against first",
        "teacher_contexts: inputs: curated_subset",
        '  rule: "confident_shift" -> "random"',
        f"  selected only in the second run: 1 ({IDS[1]})",
        "The same: raw_pool, quarantine, pool, tests, answers, pseudo_labels.",
    ):
        assert part in text
    assert ["distilled", "in_domain", "avg_at_k", "0.250", "1.000", "+0.750"] in [
        line.split()[:6] for line in text.splitlines()
    ]
    assert main(["diff", "first", "second", "--store", root, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == ["first", "second"]
    assert main(["diff", "first", "third", "--store", root]) == 2
    assert "no run 'third'" in capsys.readouterr().err
