import re
import time

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import PROJECT_ROOT
from pipeline.prompts import LETTERS
from pipeline.rollouts.extract import extract_answer

CITIES = ("Paris", "London", "Rome", "Berlin")
TEN = tuple(f"substance {i}" for i in range(10))
BLOOD = ("O", "A", "AB", "B")
NUMBERS = ("1", "10", "1.5", "$\\frac{1}{2}$", "12 m", "12 m/s", "I only", "I and II")
MMLU_PRO = PROJECT_ROOT.parent / "shared" / "data" / "mmlu_pro"

CASES = [
    # the instructed form and its Markdown, LaTeX, JSON and tag variants
    ("They are far.\nAnswer: B", CITIES, "B"),
    ("Answer:B", CITIES, "B"),
    ("answer: b", CITIES, "B"),
    ("ANSWER : (C).", CITIES, "C"),
    ("Final answer: D", CITIES, "D"),
    ("**Answer:** B", CITIES, "B"),
    ("**Answer: B**", CITIES, "B"),
    ("**Answer**: *B*", CITIES, "B"),
    ("Answer: **(B)**", CITIES, "B"),
    ("### Final Answer\n\n**C**", CITIES, "C"),
    ("Answer:\n\n(D) Berlin", CITIES, "D"),
    ("Answer: `B`", CITIES, "B"),
    ("Answer: B) London", CITIES, "B"),
    ("Answer: B. London", CITIES, "B"),
    ("Answer: B - London", CITIES, "B"),
    ("Answer: B London", CITIES, "B"),
    ("Answer: Option B", CITIES, "B"),
    ("Answer: A", CITIES, "A"),
    ("Answer: a", CITIES, "A"),
    ("Answer:\u00a0C", CITIES, "C"),
    ("Answer\uff1aC", CITIES, "C"),
    (r"So \boxed{B}.", CITIES, "B"),
    (r"$\boxed{\text{(C)}}$", CITIES, "C"),
    (r"\boxed{D. Berlin}", CITIES, "D"),
    (r"Final Answer: \(\boxed{B}\)", CITIES, "B"),
    (r"The answer is $\mathrm{B}$.", CITIES, "B"),
    ('{"reason": "far", "answer": "B"}', CITIES, "B"),
    ('```json\n{"answer": "Rome"}\n```', CITIES, "C"),
    ("<answer>D</answer>", CITIES, "D"),
    ("<answer> London </answer>", CITIES, "B"),
    # prose
    ("The answer is (C).", CITIES, "C"),
    ("the answer is C", CITIES, "C"),
    ("The correct answer is therefore: **B**.", CITIES, "B"),
    ("Thus, the answer is option (D)", CITIES, "D"),
    ("The answer to this question is B because it is far.", CITIES, "B"),
    ("The correct answer choice is D, as shown.", CITIES, "D"),
    ("The best answer must be\n(B)", CITIES, "B"),
    ("The correct option is B", CITIES, "B"),
    ("Hence option B is correct.", CITIES, "B"),
    ("So (C) is the best answer.", CITIES, "C"),
    ("B is the correct answer.", CITIES, "B"),
    ("A is the answer.", CITIES, "A"),
    ("Option **D** is right", CITIES, "D"),
    ("The correct answer is:\n\n**B. London**", CITIES, "B"),
    ("The answer is D) Berlin, not B", CITIES, "D"),
    ("Answer: D, not B", CITIES, "D"),
    ("Option A is correct and option B is incorrect.", CITIES, "A"),
    ("The answer is A because it is far.", CITIES, "A"),
    ("The answer is (a).", CITIES, "A"),
    ("The answer is I.", TEN, "I"),
    # option text
    ("The answer is Paris.", CITIES, "A"),
    ("Answer: rome", CITIES, "C"),
    ("The answer is **London** (B).", CITIES, "B"),
    ("The answer is Rome, which is far.", CITIES, "C"),
    ("Answer: 10", NUMBERS, "B"),
    ("Answer: 1.5", NUMBERS, "C"),
    ("Answer: $\\frac{1}{2}$", NUMBERS, "D"),
    ("Answer: 12 m/s", NUMBERS, "F"),
    ("Answer: I only", NUMBERS, "G"),
    ("Answer: I and II.", NUMBERS, "H"),
    ("Answer: A matter of taste", ("none", "A matter of taste"), "B"),
    ("Answer: AB", BLOOD, "C"),
    ("Answer: O", BLOOD, "A"),
    ("Answer: A", BLOOD, "A"),
    ("The answer is e.", ("pi", "e"), "B"),
    # the last statement wins, thoughts and run-on questions do not count
    ("Answer: A\nWait, that is wrong.\nAnswer: B", CITIES, "B"),
    ("The answer is B. But no: option C is correct.", CITIES, "C"),
    ("The answer is B. The answer is clear from the map.", CITIES, "B"),
    ("Answer: B. C is wrong because it is near.", CITIES, "B"),
    ("<think>The answer is A.</think>\n\nAnswer: C", CITIES, "C"),
    ("The answer is A.</think>The answer is D.", CITIES, "D"),
    ("The answer is (B).\n\nQuestion: Which?\nAnswer: Let's think. The answer is (C).", CITIES, "B"),
    ("Answer: B\n\nQ2: Which?\nA: C. The answer is D", CITIES, "B"),
    # nothing but the answer
    ("B", CITIES, "B"),
    (" (B) ", CITIES, "B"),
    ("B.", CITIES, "B"),
    ("**C**", CITIES, "C"),
    ("b", CITIES, "B"),
    ("B) London", CITIES, "B"),
    ("Berlin.", CITIES, "D"),
    # abstentions
    ("", CITIES, "empty"),
    (" \n", CITIES, "empty"),
    ("<think>hm</think>", CITIES, "empty"),
    ("<think>The answer is B.", CITIES, "unfinished_thought"),
    ("I do not know.", CITIES, "no_statement"),
    ("B is far, and so is C.", CITIES, "no_statement"),
    ("A) Paris is far.\nB) London is near.", CITIES, "no_statement"),
    ("The answer is not B.", CITIES, "no_statement"),
    ("The answer isn't B.", CITIES, "no_statement"),
    ("Option B is not correct.", CITIES, "no_statement"),
    ("Option B is incorrect.", CITIES, "no_statement"),
    ("If the answer is B, then they are far.", CITIES, "no_statement"),
    ("I don't think that the answer is B.", CITIES, "no_statement"),
    ("It is unclear whether option B is correct.", CITIES, "no_statement"),
    ("So the answer is B?", CITIES, "no_statement"),
    ("Perhaps the answer is (B)?", CITIES, "no_statement"),
    ("The answer is a matter of opinion.", CITIES, "no_statement"),
    ("The answer is A matter of opinion.", CITIES, "no_statement"),
    ("Answer: a matter of opinion", CITIES, "no_statement"),
    ("The answer is a.", CITIES, "no_statement"),
    ("The answer is I think unclear.", TEN, "no_statement"),
    ("The answer is I'm sure clear.", TEN, "no_statement"),
    ("The answer is B_1 + C.", CITIES, "no_statement"),
    ("The answer is C = 4.", CITIES, "no_statement"),
    ("Answer: B.C. 44", CITIES, "no_statement"),
    ("Answer: B cells", CITIES, "no_statement"),
    ("Answer: 12 m, then 3 m", NUMBERS, "no_statement"),
    ("Answer: 15", NUMBERS, "no_statement"),
    ("Answer choices: (A) Paris (B) London", CITIES, "no_statement"),
    ("My answerB: B", CITIES, "no_statement"),
    ("Answer: A or B", CITIES, "ambiguous"),
    ("The answer is (A) and (C).", CITIES, "ambiguous"),
    ("The answer is either B or C, both fit.", CITIES, "ambiguous"),
    ("Assertion (A) is correct, reason (D) is wrong.", CITIES, "no_statement"),
    ("Answer: 5 mW", ("5 MW", "5 kW"), "no_statement"),
    ("Answer: aa", ("AA", "Aa"), "no_statement"),
    ("Answer: 10%", NUMBERS, "no_statement"),
    ("The answer is definitely not (B).", CITIES, "no_statement"),
    ("Answer: B, C", CITIES, "ambiguous"),
    ("Answer: **A**/**B**", CITIES, "ambiguous"),
    ("Answer: B\nThe answer is A or B.", CITIES, "ambiguous"),
    ("A or B is the correct answer.", CITIES, "ambiguous"),
    ("The answer is London (C).", CITIES, "ambiguous"),
    ("Answer: same", ("same", "same", "other"), "ambiguous"),
    ("Answer: E", CITIES, "out_of_range"),
    ("The answer is (J).", CITIES, "out_of_range"),
    ("Option Z is correct.", CITIES, "out_of_range"),
]

OPEN_CASES = [
    ("We add.\nAnswer: 42", "42"),
    ("Answer: 41\nNo.\nAnswer: 42.", "42"),
    ("**Answer:** the mitochondrion.", "the mitochondrion"),
    ("Answer:\n42", "42"),
    (r"So \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
    ('{"answer": "x, y", "sure": true}', "x, y"),
    ('{"answer": 42}', "42"),
    ("<answer>4 2</answer>", "4 2"),
    ("The answer is $x^2$.", "x^2"),
    ("The answer is 3.5. This follows from above.", "3.5"),
    ("The answer is Dr. Smith", "Dr. Smith"),
    ("The answer is a matter of opinion.", "a matter of opinion"),
    ("Answer: .5", ".5"),
    ("The answer is not 42.", None),
    ("It is 42.", None),
    (r"\boxed{", None),
    ("Answer:", None),
]


UNITS = [
    *"Answer: |the answer is |the answer is not |answer: answer |the answer to |Answer: (|Answer: A or ".split("|"),
    *'the answer is (B) or |\\boxed{|\\boxed{B |"answer":"|option A |is correct |answer |<answer>|<think>'.split("|"),
    *" |\n|(|**|#|$|{|A |(A|A, |or A |not |if |Question".split("|"),
]


@pytest.mark.parametrize(("response", "options", "expected"), CASES)
def test_case(response, options, expected):
    found = extract_answer(response, options)
    if len(expected) == 1:
        index = LETTERS.index(expected)
        assert (found.index, found.answer) == (index, options[index]), found
    else:
        assert (found.rule, found.answer, found.index, found.span) == (expected, None, None, None)


@pytest.mark.parametrize(("response", "expected"), OPEN_CASES)
def test_open_case(response, expected):
    found = extract_answer(response, ())
    assert (found.answer, found.index) == (expected, None)
    assert (found.rule == "no_statement") == (expected is None)


def test_span_is_the_letter_or_the_text():
    for response, options, expected in CASES:
        found = extract_answer(response, options)
        if found.span is not None:
            stated = response[slice(*found.span)]
            assert stated.upper() == expected or stated.casefold() in options[found.index].casefold()


def test_options_are_told_by_identity():
    """Permuting the options moves the letter, not the answer."""
    for letter, city in zip("ABCD", reversed(CITIES), strict=True):
        assert extract_answer(f"Answer: {letter}", CITIES[::-1]).answer == city


@given(st.text(alphabet="AB a.:()*\n$\\{}?,orsinwex", max_size=60), st.sampled_from(["Answer: ", "The answer is ", ""]))
def test_any_text_gives_an_option_or_a_reason(text, anchor):
    found = extract_answer(anchor + text, CITIES)
    assert (found.answer is None) == (found.index is None) == (found.span is None)
    assert found.answer is None or found.answer == CITIES[found.index]


@given(st.text(max_size=80).filter(lambda text: "think>" not in text.lower() and ":" not in text))
def test_a_final_answer_line_is_always_read(reasoning):
    assert extract_answer(f"{reasoning}\nAnswer: C", CITIES).answer == "Rome"


@pytest.mark.parametrize("unit", UNITS)
def test_time_is_linear(unit):
    """Two minutes and more where a scan is quadratic."""
    start = time.process_time()
    for end in ("", "xx", "\n"):
        response = "Answer: B\nAnswer:" + unit * (200_000 // len(unit)) + end
        extract_answer(response, CITIES)
        extract_answer(response, ())
    assert time.process_time() - start < 6


def test_agrees_with_the_official_extractor_of_mmlu_pro():
    """Real outputs of Llama-3.1-8B with several letters stated are the only disagreements."""
    if not MMLU_PRO.exists():
        pytest.skip("shared data absent")
    explicit = re.compile(r"answer is \(?[A-J]\)?|[aA]nswer:\s*[A-J]")
    rows = pl.read_parquet(MMLU_PRO / "llama31_8b_outputs.parquet").join(
        pl.read_parquet(MMLU_PRO / "test.parquet").select("question_id", "options"), on="question_id"
    )
    stated = [row for row in rows.iter_rows(named=True) if explicit.search(row["generated_text"])]
    answers = [extract_answer(row["generated_text"], row["options"]) for row in stated]
    wrong = [a.rule for a, r in zip(answers, stated, strict=True) if a.index != LETTERS.index(r["pred"])]
    assert len(stated) > 2_500
    assert 1 - len(wrong) / len(stated) >= 0.99
    assert len([rule for rule in wrong if rule != "ambiguous"]) <= 1
