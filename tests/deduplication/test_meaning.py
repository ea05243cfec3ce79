"""What makes another question of one that reads alike, and what does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.deduplication.meaning import OPPOSITES, ask_differently

DIFFERENT = [
    ("Which of these is a metal?", "Which of these is NOT a metal?"),
    ("Which can be cooled?", "Which cannot be cooled?"),
    ("Why does it melt?", "Why doesn\u2019t it melt?"),
    ("All hold except which?", "All hold, which?"),
    ("Why does pressure increase here?", "Why does pressure decrease here?"),
    ("Which is the first step?", "Which is the last step?"),
    ("What is more stable?", "What is more unstable?"),
    ("Who ruled in Japan then?", "Who ruled in the United States then?"),
    ("What weighs 5 kg?", "What weighs 6 kg?"),
    ("Is CO acidic?", "Is CO2 acidic?"),
    ("哪一项正确?", "哪一项不正确?"),
]
SAME = [
    ("Which of these is a metal?", "WHICH OF THESE IS A METAL?"),
    ("Which of these is a metal?", "Which Of These Is A Metal"),
    ("Which of these is a metal?", "Which among these is a metal?"),
    ("Who ruled in Japan then?", "Consider this. Who ruled in Japan then?"),
    ("Question: Who ruled in Japan?", "Who ruled in Japan?"),
    ("Which is the largest planet?", "Which is the biggest planet?"),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_one_word_makes_another_question(one, other):
    assert ask_differently(one, other)
    assert ask_differently(other, one)


@pytest.mark.parametrize(("one", "other"), SAME)
def test_case_and_wording_do_not(one, other):
    assert not ask_differently(one, other)
    assert not ask_differently(other, one)


@given(st.text(max_size=40))
def test_a_question_does_not_differ_from_itself(text):
    assert not ask_differently(text, text)


def test_opposites_are_pairs():
    assert all(len(pair) == 2 and pair[0] != pair[1] for pair in OPPOSITES)
