import pytest

from pipeline.teacher.wording import Wording

STEM = "In the Velmar school, what does amber turn into?"


@pytest.mark.parametrize(
    ("first", "second", "near"),
    [
        ((STEM, ["a", "b"]), (STEM, ["a", "b"]), True),
        ((STEM, ["a", "b"]), (" in the  VELMAR school: what does “amber” turn into ?", ["B.", "A"]), True),
        ((STEM, ["a", "b", "c", "d"]), (STEM, ["a", "b", "x", "y"]), True),  # other distractors
        ((STEM, ["a", "b", "c", "d"]), (STEM, ["a", "x", "y", "z"]), False),
        ((STEM, []), (STEM, []), True),
        ((STEM, []), (STEM, ["a", "b"]), True),
        ((STEM, ["a", "b"]), (STEM.replace("amber", "jade"), ["a", "b"]), False),  # one word of a template
        (("Which number is the largest?", ["1", "2"]), ("Which number is the largest?", ["3", "4"]), False),
        ((f"{STEM} Four adepts disagree.", ["a", "b"]), (f"{STEM} Four adepts disagree.", ["c", "d"]), True),  # long
        (("Is x at 1.5?", []), ("Is x at 15?", []), False),  # punctuation inside words has a meaning
        (("What is H\u2082O?", []), ("What is H2O?", []), True),
    ],
)
def test_near_duplicates(first, second, near):
    assert Wording.of(*first).near(Wording.of(*second)) is near
    assert Wording.of(*second).near(Wording.of(*first)) is near
