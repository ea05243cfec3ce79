"""Reading what a model wrote as a question."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.pool.question import Question
from pipeline.proposals.parse import read_question

CHOICE = "Which metal is liquid?\nA. iron\nB. mercury\nC. tin"


@pytest.mark.parametrize(
    "text",
    [
        CHOICE,
        f"Question: {CHOICE}",
        f"**Question 4:** {CHOICE}",
        f"4. {CHOICE}\n\nAnswer: B",
        f"Example\n{CHOICE}\nThe answer is B.",
        f"\n{CHOICE}\n\nExample\nWhich gas is light?\nA. xenon\nB. helium",
        CHOICE.replace(". ", ") "),
        "Which metal is liquid?\n\nA. iron\n\nB. mercury\n\nC. tin\n",
    ],
)
def test_a_question_with_options_is_read_and_what_follows_is_left_out(text):
    found = read_question(text, "metals", has_options=True)
    assert isinstance(found, Question)
    assert (found.question, found.options) == ("Which metal is liquid?", ["iron", "mercury", "tin"])
    assert (found.domain, found.kind, list(found.permutation)) == ("metals", "multiple_choice", [0, 1, 2])


@pytest.mark.parametrize(
    ("text", "has_options", "problem"),
    [
        ("", True, "no options"),
        ("Which metal is liquid?", True, "no options"),
        (CHOICE, False, "options, which"),
        ("Which metal is liquid?\nA. iron", True, "one option only"),
        ("Which metal is liquid?\nA. iron\nC. tin", True, "one option only"),
        ("Which metal is liquid?\nA. tin\nB. tin", True, "two options are the same"),
        ("A. iron\nB. tin", True, "empty"),
        ("Mercury is liquid.", False, "no question mark"),
        ("", False, "no question mark"),
        ("What\x07?", False, "U\\+0007"),
    ],
)
def test_what_is_no_question_of_the_form_asked_for_is_refused_with_the_reason(text, has_options, problem):
    found = read_question(text, "metals", has_options)
    assert isinstance(found, str)
    assert re.search(problem, found)


def test_an_open_question_ends_with_its_paragraph():
    found = read_question("New question: What melts\nat 30 degrees?\n\nGallium.", "metals", has_options=False)
    assert isinstance(found, Question)
    assert (found.question, found.options) == ("What melts\nat 30 degrees?", [])


@given(st.text(), st.booleans())
def test_any_text_gives_a_question_or_a_reason(text, has_options):
    found = read_question(text, "", has_options)
    assert found
    assert isinstance(found, str) or bool(found.options) == has_options
