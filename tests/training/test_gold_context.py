"""The ceiling: what its teacher sees, and on which questions."""

import polars as pl
import pyarrow.parquet as pq
import pytest

from pipeline.adapters.config import CeilingAdapterConfig
from pipeline.errors import ArtifactError
from pipeline.pool.schemas import GOLD_LABELS
from pipeline.prompts import render_demonstrations
from pipeline.table import conform
from pipeline.teacher.schemas import TEACHER_CONTEXTS
from training.objectives import opsd
from training.objectives.gold_context import OBJECTIVE, read

RESPONSES = ["red", "green", "yellow", "cyan", "a long and winding colour", "teal"]  # of the questions q0 to q5


def put_gold(folder, rows):
    schema = pl.DataFrame(GOLD_LABELS.empty_table()).schema
    gold = conform(pl.DataFrame([{"gold_index": None} | row for row in rows], schema=schema), GOLD_LABELS, where="gold")
    pq.write_table(gold, folder / "gold_labels.parquet")


def rows(job_for, folder, inputs):
    return read(job_for("gold_context", folder, CeilingAdapterConfig(), inputs=inputs)).collect()


def test_the_teacher_sees_the_question_with_its_gold_answer_and_the_student_the_question(fill, job_for, tmp_path):
    found = rows(job_for, tmp_path, fill(tmp_path))
    assert found["id"].to_list() == [f"q{i}" for i in range(len(RESPONSES))]
    for i, (_, prompt, context) in enumerate(found.iter_rows()):
        assert prompt == f"colour {i}?"
        gold = f"Example\ncolour {i}?\nResponse: Answer: {RESPONSES[i]}\n\n"
        assert context == f"Example\nred\nResponse: blue\n\n{gold}Now the question\n"
    assert (OBJECTIVE.build, OBJECTIVE.notes) == (opsd.build, opsd.OBJECTIVE.notes)


@pytest.mark.parametrize("examples", [[], [("red", "blue"), ("pink", "teal")]])
def test_the_gold_answer_is_one_more_example(job_for, tmp_path, examples):
    inputs = {name: tmp_path / name for name in OBJECTIVE.inputs}
    for folder in inputs.values():
        folder.mkdir()
    put_gold(inputs["gold_labels"], [{"id": "q", "gold_answer": "green"}])
    kinds = pl.DataFrame(TEACHER_CONTEXTS.empty_table()).schema
    context = ("q", "colour?", render_demonstrations(examples), [], [], 0, 0)
    contexts = conform(pl.DataFrame([context], kinds, orient="row"), TEACHER_CONTEXTS, where="contexts")
    pq.write_table(contexts, inputs["teacher_contexts"] / "teacher_contexts.parquet")
    [(_, _, told)] = rows(job_for, tmp_path, inputs).iter_rows()
    assert told == render_demonstrations([*examples, ("colour?", "Answer: green")])


def test_questions_without_gold_are_left_out(fill, job_for, tmp_path):
    inputs = fill(tmp_path)
    put_gold(inputs["gold_labels"], [{"id": "q2", "gold_answer": "5"}, {"id": "other", "gold_answer": "6"}])
    assert rows(job_for, tmp_path, inputs)["id"].to_list() == ["q2"]
    put_gold(inputs["gold_labels"], [])
    assert rows(job_for, tmp_path, inputs).schema == pl.Schema(
        dict.fromkeys(("id", "prompt", "privileged_context"), pl.String)
    )


def test_a_pool_that_was_stored_without_gold_names_what_to_make(fill, job_for, tmp_path):
    inputs = fill(tmp_path)
    (inputs["gold_labels"] / "gold_labels.parquet").unlink()
    with pytest.raises(ArtifactError, match="materialize 'gold_labels' again"):
        rows(job_for, tmp_path, inputs)
