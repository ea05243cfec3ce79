import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.answers.equivalence import normalise_answer
from pipeline.answers.schemas import ANSWERS
from pipeline.errors import CurationError
from pipeline.evaluation.grade import grade
from pipeline.evaluation.schemas import PREDICTIONS
from pipeline.pool.schemas import GOLD_LABELS
from pipeline.table import conform


def table(schema, rows):
    empty = pl.DataFrame(schema.empty_table())
    return pl.DataFrame([dict.fromkeys(schema.names) | row for row in rows], schema=empty.schema)


def stated(question, sample=0, answer=None, index=None):
    return {"id": question, "sample": sample, "answer": answer, "answer_index": index}


def label(question, answer, index=None):
    return {"id": question, "gold_answer": answer, "gold_index": index}


GOLD = table(GOLD_LABELS, [label("choice", "salt", 1), label("open", "0.50")])


def test_choice_questions_go_by_option_and_open_ones_by_text():
    answers = table(
        ANSWERS,
        [
            stated("choice", 0, "salt", 1),
            stated("choice", 1, "salt", 2),  # another option that happens to read the same
            stated("choice", 2),
            stated("open", 0, " .5. "),
            stated("open", 1, "a half"),
            stated("open", 2),
        ],
    )
    graded = grade(answers, GOLD, "untouched", "in_domain")
    assert graded["correct"].to_list() == [True, False, False, True, False, False]
    assert graded["sample"].to_list() == [0, 1, 2, 0, 1, 2]
    assert graded["gold_index"].to_list() == [1, 1, 1, None, None, None]
    assert set(graded["model"]) == {"untouched"}
    assert conform(graded, PREDICTIONS, "test").schema.equals(PREDICTIONS)


def test_tables_without_any_answer_or_index_are_graded():
    answers = pl.DataFrame({name: [None] for name in ANSWERS.names}).with_columns(id=pl.lit("open"), sample=0)
    assert grade(answers, GOLD, "untouched", "in_domain")["correct"].to_list() == [False]


def test_questions_without_gold_are_left_out_and_counted(caplog):
    answers = table(ANSWERS, [stated("open", 0, "0.5"), stated("other", 0, "1"), stated("other", 1, "1")])
    assert grade(answers, GOLD, "untouched", "in_domain")["id"].to_list() == ["open"]
    assert "1 of 2 questions have no gold label" in caplog.text


def test_refuses_no_gold_and_doubled_gold():
    answers = table(ANSWERS, [stated("other", 0, "1")])
    with pytest.raises(CurationError, match=r"none of the 1 questions.*answer_column"):
        grade(answers, GOLD, "untouched", "in_domain")
    with pytest.raises(CurationError, match="'open' has several"):
        grade(answers, pl.concat([GOLD, GOLD.tail(1)]), "untouched", "in_domain")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,000", "1000.0"),
        ("1e3", "1000"),
        (".5", "0.50."),
        ("\u22123", "-3"),
        ("+7", "7"),
        ("1 000", "1000"),
        ("0.1", "0.10000"),
        ("  Sodium   CHLORIDE. ", "sodium chloride"),
        ("Stra\u00dfe", "STRASSE"),
        ("e\u0301tat", "\u00e9tat"),
    ],
)
def test_equal_answers(one, other):
    assert normalise_answer(one) == normalise_answer(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,00", "100"),
        ("0.1", "0.1000000000000000055"),
        ("nan", "0"),
        ("x\u00b2", "x2"),
        ("-3", "3"),
    ],
)
def test_different_answers(one, other):
    assert normalise_answer(one) != normalise_answer(other)


@given(st.text() | st.from_regex(r"[+-]?[0-9,]{1,6000}(\.[0-9]*)?(e[+-]?[0-9]{1,9})?", fullmatch=True))
def test_normalising_any_text_never_fails_nor_sees_outer_space(text):
    assert normalise_answer(text) == normalise_answer(f" {text}\n")
