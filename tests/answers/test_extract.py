"""What holds of any output; single outputs are in ``test_extract_corpus.py``."""

import re
import time

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.answers.extract import extract_answer
from pipeline.answers.values import Abstention
from pipeline.paths import PROJECT_ROOT
from pipeline.prompts import LETTERS

CITIES = ("Paris", "London", "Rome", "Berlin")
MMLU_PRO = PROJECT_ROOT.parent / "shared" / "data" / "mmlu_pro"

# Pieces of which outputs are made, so that random outputs come near statements; also repeated, to find slow patterns.
UNITS = [
    *"Answer: |the answer is |the answer is not |answer: answer |the answer to |Answer: (|Answer: A or ".split("|"),
    *'the answer is (B) or |\\boxed{|\\boxed{B |"answer":"|option A |is correct |answer |<answer>|<think>'.split("|"),
    *" |\n|(|**|#|$|{|A |(A|A, |or A |not |if |Question|wait, |no, |B is wrong. |but |hm".split("|"),
    *"\n- |<b>|</b>|'answer':|answer=|I choose |\\text{|\\(|\"|\u201c|A/|A+|I, |Paris or |Paris, |10 |1,000|1/2".split(
        "|"
    ),
    *"no, |actually |hmm |I mean |sorry, it is |some say |he said: '|Correction: |perhaps |isn't A; it's ".split("|"),
    *"^2|_|Antwort: |\u7b54\u6848\u662f|\u7b54\u3048".split("|"),
]
text = st.one_of(st.text(max_size=80), st.lists(st.sampled_from([*UNITS, *"ABCDabi", *CITIES, ". ", "?"])).map("".join))
options = st.one_of(
    st.just(CITIES),
    st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=30),
    st.sampled_from([("True", "False"), ("C", "A", "T", "G"), ("1/2", "0.5%", "5 m", "10"), ("I", "II", "III")]),
    st.just(()),
)


@settings(max_examples=400, deadline=None)
@given(text, options)
@example("]", ["0", "]"])
def test_any_text_gives_an_answer_or_a_reason(response, options):
    found = extract_answer(response, options)
    if found.answer is None:
        assert (found.index, found.span) == (None, None)
        assert found.rule in set(Abstention)
        return
    start, end = found.span
    assert 0 <= start < end <= len(response)
    assert found.rule not in set(Abstention)
    if options:
        assert found.answer == options[found.index]
    else:
        assert (found.index, found.answer) == (None, response[start:end])


@settings(max_examples=200, deadline=None)
@given(text, st.integers(0, 3))
def test_an_appended_answer_line_wins(reasoning, index):
    if re.search("(?i)<(think|thought|reasoning)|question|q[ \t]*[0-9]*[ \t*]*:", reasoning):
        return
    assert extract_answer(f"{reasoning}\nAnswer: {LETTERS[index]}", CITIES).index == index


@settings(max_examples=200, deadline=None)
@given(text, st.permutations(range(4)))
def test_a_stated_text_is_the_option_wherever_it_stands(reasoning, order):
    """Permuting the options permutes the index of a text, and the text of a letter."""
    for stated in (f"{reasoning}\nAnswer: Rome", "Answer: C"):
        shuffled = [CITIES[index] for index in order]
        plain, permuted = extract_answer(stated, CITIES), extract_answer(stated, shuffled)
        if stated == "Answer: C":
            assert permuted.answer == shuffled[2]
        elif plain.span and stated[slice(*plain.span)] == "Rome":
            assert (permuted.answer, permuted.index) == ("Rome", order.index(2))


@pytest.mark.parametrize(
    ("response", "stated"),
    [
        ("The answer is (C).", "C"),
        ("\n\n<think>A</think>\n**Answer:** C", "C"),
        ("Answer: Rome, which is far", "Rome"),
        ("The answer is **Rome** (C)", "Rome"),
        ("(c)", "c"),
    ],
)
def test_span_is_the_letter_or_the_text(response, stated):
    found = extract_answer(response, CITIES)
    assert (found.answer, response[slice(*found.span)]) == ("Rome", stated)


@pytest.mark.parametrize("unit", [*UNITS, "".join(UNITS)])
def test_time_is_linear(unit):
    """Four times the text takes about four times as long; sixteen where a scan is quadratic."""

    def seconds(n, options):
        response, spent = "Answer: B\nAnswer:" + unit * (n // len(unit)) + "xx", []
        for _ in range(2):  # the first call may load the library of expressions
            start = time.process_time()
            extract_answer(response, options)
            spent.append(time.process_time() - start)
        return min(spent)

    n = 200_000 if unit not in UNITS else 80_000
    for options in (CITIES, ()):
        assert seconds(n, options) < 9 * seconds(n // 4, options) + 0.5


def test_agrees_with_the_official_extractor_of_mmlu_pro():
    """Where outputs of Llama-3.1-8B state a letter, 2,732 of 2,738 agree; ``corpus/README.md`` explains the rest."""
    if not MMLU_PRO.exists():
        pytest.skip("shared data absent")
    explicit = re.compile(r"answer is \(?[A-J]\)?|[aA]nswer:\s*[A-J]")
    rows = pl.read_parquet(MMLU_PRO / "llama31_8b_outputs.parquet").join(
        pl.read_parquet(MMLU_PRO / "test.parquet").select("question_id", "options"), on="question_id"
    )
    found = [(row, extract_answer(row["generated_text"], row["options"])) for row in rows.iter_rows(named=True)]
    stated = [pair for pair in found if explicit.search(pair[0]["generated_text"])]
    wrong = [answer.rule for row, answer in stated if answer.index != LETTERS.index(row["pred"])]
    assert len(stated) > 2_500
    assert 1 - len(wrong) / len(stated) >= 0.995
    assert len([rule for rule in wrong if rule != "ambiguous"]) <= 1
    silent = [answer for row, answer in found if not explicit.search(row["generated_text"])]
    assert all(answer.index is None for answer in silent)


@pytest.mark.parametrize(
    ("question", "response", "stated"),
    [
        ("What is the capital of France?", "The capital of France is Paris. It lies on the Seine.", "Paris"),
        ("What is the capital of France?", 'The capital of "France" is Paris.', "Paris"),
        ("What is the capital of France?", "The capital of France (FR) is Paris.", "Paris"),
        ("What is the capital of France?", "Sure! The capital of France is **Paris**.", "Paris"),
        ("What is the capital of France?", "The capital of France is not Rome.", None),
        (
            "What is the study of Paris called?",
            "The study of Paris is called Paris.",
            "Paris",
        ),
        ("What is the heart of France?", "The heart of France is the Paris.", "Paris"),
        ("What is the capital of France?", "Some say the capital of France is Rome.", None),
        ("What is the capital of France?", "The capital of Spain is Madrid.", None),
        ("What is the capital of France?", "The capital of France is Rome. Wait, that is wrong.", None),
        ("What is the capital of France?", "The capital of France is Rome.\nAnswer: Paris", "Paris"),
        ("What are the first letters (a|b)?", "The first letters (a|b) are x and y.", "x and y"),
        ("Name the capital of France.", "The capital of France is Paris.", None),
    ],
)
def test_a_sentence_that_begins_as_the_question_does_states_its_answer(question, response, stated):
    assert extract_answer(response, [], question=question).answer == stated
    choice = extract_answer(response, ["Rome", "Paris", "x and y"], question=question)
    assert choice.answer == stated


def test_an_open_answer_in_prose_ends_before_an_aside():
    for aside in (" (Hz)", ", named after Heinrich Hertz", ". It is a unit", ". This is one"):
        assert extract_answer(f"The answer is hertz{aside}.", []).answer == "hertz"
    assert extract_answer("The answer is Ca(OH)2.", []).answer == "Ca(OH)2"
    assert extract_answer("The answer is Dr. Smith.", []).answer == "Dr. Smith"
