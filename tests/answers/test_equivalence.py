from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.answers.equivalence import exact_value, normalise_answer

EQUAL = [
    ["0.5", "1/2", ".5", "50%", "50 %", r"\frac{1}{2}", r"$\dfrac{1}{2}$", "5e-1", "0.50", "x = 0.5", "(1/2)"],
    [
        "1000",
        "1,000",
        "1 000",
        "1{,}000",
        "$10^3$",
        "10^{3}",
        "10³",
        "1e3",
        "1 x 10^3",
        "1 \u00d7 10³",
        r"1\times 10^{3}",
    ],
    ["-7", "\u22127", "-7.0", "-14/2"],
    ["3.14", "157/50"],
    ["1234.5", "1,234.5"],
    [r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}", r"\sqrt{2}/2", r"\sqrt{\frac{1}{2}}"],
    ["x(x+1)", "x^2+x", "x + x^{2}", "x*(1+x)"],
    [r"2\pi", r"\pi*2", r"\frac{4\pi}{2}"],
    ["12 m/s^2", "12 m/s²", "12.0 m/s^2", r"12 \text{m/s}^2"],
    ["5 Meter", "5 meter", "5.0 meter"],
    ["Paris", "paris", " Paris. ", r"\text{Paris}"],
    ["H2O", "H₂O", r"$H_2O$", r"\mathrm{H_2O}"],
]
APART = [
    ("5 mW", "5 MW"),
    ("5", "5%"),
    ("5", "5 m"),
    ("1-2", "2-3"),
    ("to-do", "so-so"),
    ("2020-01-02", "2020-02-01"),
    ("C2H4O", "C4H2O"),
    (r"2\frac{1}{2}", "1"),
    ("1½", "11/2"),
    ("2(3)", "5"),
    ("3 h 2 m", "2 h 3 m"),
    (r"x^{2y}", "x^2y"),
    ("1, 2", "1.2"),
    ("3,14", "314"),
    ("1.234,5", "1.2345"),
    ("listen", "silent"),
]
HOSTILE = [
    *[
        "9**9**9**9",
        "9^{9^{9^{9}}}",
        "9^9^9^9",
        "100000!",
        "9!!!!!",
        "2^{999999999}",
        "(1+x)^{99}",
        "(" * 50 + "1" + ")" * 50,
    ],
    *[
        "{" * 50 + "}" * 50,
        r"\binom{1000000}{500000}",
        r"\sum_{k=1}^{10^9} k",
        r"\int_0^1 x dx",
        "1e999999999",
        "0/0",
        "1/0",
    ],
    *[
        r"\frac{1}{0}",
        "9" * 5000,
        "9" * 90 + "^" + "9" * 9,
        r"\sqrt{" * 12 + "2" + "}" * 12,
        '__import__("os").system("true")',
    ],
    *["(a+b+c+d+f+g+h)^{12}", "((a+b+c)^3)^3", "\\frac" * 20, "$" * 100, "lambda: 0", "x.__class__", "1" + "/2" * 40],
]


@pytest.mark.parametrize("spellings", EQUAL, ids=lambda spellings: spellings[0])
def test_equal(spellings):
    assert len({normalise_answer(text) for text in spellings}) == 1, [normalise_answer(text) for text in spellings]


@pytest.mark.parametrize(("one", "other"), APART)
def test_apart(one, other):
    assert normalise_answer(one) != normalise_answer(other)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:20])
def test_hostile_text_costs_little(text):
    """Evaluating one of these would take minutes and gigabytes, or run code."""
    assert len(normalise_answer(text)) < 2_000 + len(text)


@given(st.fractions(max_denominator=999), st.integers(-20, 20))
def test_numbers_keep_their_exact_value(value, exponent):
    assert exact_value(f"{value.numerator}/{value.denominator}") == str(value)
    assert exact_value(f"{value.numerator}e{exponent}") == str(value.numerator * Fraction(10) ** exponent)
    assert exact_value(f"{value.numerator:,}") == str(value.numerator)


def combine(parts):
    """Return pairs of an expression and its value, made of two smaller ones."""
    pair = st.tuples(parts, parts)
    return st.one_of(
        pair.map(lambda p: (rf"\frac{{{p[0][0]}}}{{{p[1][0]}}}", p[0][1] / p[1][1] if p[1][1] else None)),
        pair.map(lambda p: (f"{p[0][0]}+{p[1][0]}", p[0][1] + p[1][1])),
        pair.map(lambda p: (f"({p[0][0]})({p[1][0]})", p[0][1] * p[1][1])),
        pair.map(lambda p: (f"({p[0][0]})-({p[1][0]})", p[0][1] - p[1][1])),
        pair.map(lambda p: (f"({p[0][0]})*({p[1][0]})", p[0][1] * p[1][1])),
        parts.map(lambda p: (f"({p[0]})^2", p[1] ** 2)),
        parts.map(lambda p: (rf"3\sqrt{{({p[0]})^2}}", 3 * abs(p[1]))),
        parts.map(lambda p: (rf"\sqrt{{({p[0]})^2}}", abs(p[1]))),
    ).filter(lambda p: p[1] is not None)


numbers = st.integers(0, 99).map(lambda n: (str(n), Fraction(n))) | st.just(("0.25", Fraction(1, 4)))


@settings(max_examples=100, deadline=5_000)
@given(st.recursive(numbers, combine, max_leaves=4))
def test_an_expression_is_its_value_or_a_text(expression):
    assert exact_value(expression[0]) in {None, str(expression[1])}


@pytest.mark.timeout(120)
@settings(max_examples=60, deadline=5_000)
@given(
    st.text(alphabet="xy2+-*/^(){}.0 ", max_size=60)
    | st.lists(
        st.sampled_from([r"\frac{", r"\sqrt{", "}{", "}", "(", ")", "^2", "^{3}", "+", "-", "x", "y", "2", r"\pi"]),
        max_size=20,
    ).map("".join)
)
def test_expressions_are_read_in_bounded_time(text):
    normalise_answer(text)
