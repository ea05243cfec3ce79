"""What a trace tells of a question: the whole way, wherever it stands, and the nearest when there is none."""

import json

import pytest

from pipeline.errors import CurationError
from pipeline.inspection.__main__ import main
from pipeline.inspection.reading import open_run
from pipeline.inspection.trace import trace

IDS = ["a0aaaaaa", "b1bbbbbb", "c2cccccc", "d3dddddd"]
"""Of the questions of the runs (conftest.py), the last of them left out of the pool."""
TEST = "e4eeeeee"


def test_a_pool_question_is_followed_from_its_row_to_training_and_to_those_who_name_it(runs):
    found = trace(runs[1], IDS[1])
    assert found.story == [
        "raw_pool: read from pool.jsonl:2 (, domain '')",
        "pool: kept; template ''",
        "answers: states w 2 x, no answer 1 x",
        "pseudo_labels: majority, pseudo-label 'w', vote share 0.67, entropy 0.00 nats",
        "curated_subset: rank 2 of 3 (rule random)",
        f"teacher_contexts: its teacher sees 1 worked examples: {IDS[0]}",
        f"pool: stands for questions that were left out (1 row: {IDS[3]})",
        "quarantine: refused rows are the same question (1 row)",
        "distilled_adapter: trained on 1 of the chosen questions; its log does not say which of them at which step",
    ]
    assert found.silent == ["tests", "evaluation"]
    served = trace(runs[0], IDS[1])
    assert f"teacher_contexts: a worked example in contexts (1 row: {IDS[0]})" in served.story
    assert not any("distilled_adapter" in line for line in served.story)


def test_dropped_refused_and_test_rows_say_what_became_of_them(runs):
    dropped = trace(runs[0], IDS[3])
    assert dropped.story[-1] == f"pool: left out of the pool: near_duplicate, of {IDS[1]}, 0.91 alike"
    refused = trace(runs[0], "pool.jsonl:5")
    assert (refused.id, refused.story) == (
        None,
        ["quarantine: refused: duplicate (the same question and options as pool.jsonl:2)"],
    )
    assert trace(runs[0], TEST).story == ["tests: held out, in domain", "evaluation: distilled 1 of 4 right (w 4 x)"]


@pytest.mark.parametrize("wanted", [IDS[2], IDS[2][:3], "pool.jsonl:3"])
def test_a_question_is_found_by_id_by_its_beginning_and_by_its_place(runs, wanted):
    assert trace(runs[0], wanted).id == IDS[2]


def test_what_is_not_there_names_the_nearest(runs):
    with pytest.raises(CurationError, match=rf"no row 'c2cccccd'.*pool.jsonl:12; nearest ids: {IDS[2]}$"):
        trace(runs[0], "c2cccccd")
    with pytest.raises(CurationError, match=rf"nearest ids: {IDS[2]}$"):
        trace(runs[0], "x2cccccc")
    with pytest.raises(CurationError, match="begins 5 ids: write more of it"):
        trace(runs[0], "")
    with pytest.raises(CurationError, match=r"no run 'frist', did you mean 'first'\? There are first, second"):
        open_run(runs[0].store, "frist")


def test_the_command_line_shows_text_and_one_json_document(runs, capsys):
    root = str(runs[0].store.root)
    assert main(["trace", IDS[0], "--run", "first", "--store", root]) == 0
    text = capsys.readouterr().out
    assert "answers/answers: The answer that each response states" in text
    lines = [line.split() for line in text.splitlines()]
    assert lines.index(["sample", "answer", "answer_index"]) + 1 == lines.index(["0", "w", "0"])
    assert main(["trace", IDS[0], "--run", "first", "--store", root, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["answer"] for row in document["own"]["answers"]["answers"]] == ["w", "w", None]
    assert document["story"][0].startswith("raw_pool: read from pool.jsonl:1")
    assert main(["trace", "zzz", "--run", "first", "--store", root]) == 2
    assert capsys.readouterr().err.startswith("error: run 'first' has no row 'zzz'")
