r"""When two answers are the same: exact values of numbers and short expressions, else the same normalised text.

Plain numbers, fractions, percentages, powers of ten and their units are read by exact arithmetic. Expressions such as
``\frac{\sqrt{2}}{2}`` go to latex2sympy2_extended, the LaTeX parser of math-verify, whose trees are unevaluated.
math-verify itself is not used: its ``verify`` is not symmetric, so votes cannot be grouped by it; it limits time by
SIGALRM, which fails outside the main thread (Math-Verify issues 22 and 55); and it reads plain expressions by
sympy's ``parse_expr``, which runs ``eval``. Here time is limited by what is let through, so results never depend on
the machine's load: short texts of a closed alphabet with few symbols, small powers and shallow brackets; no
factorials. What is beyond the limits is compared as text. Pinned by ``tests/rollouts/test_equivalence.py``.
"""

import math
import re
import unicodedata
from fractions import Fraction
from functools import lru_cache
from string import ascii_lowercase

import polars as pl

_MAX_CHARS = 100  # keeps exact arithmetic cheap on runaway digit strings
_SUPERSCRIPT = re.compile("[\u207a\u207b]?[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+")
_MIXED_NUMBER = re.compile("(?<=\\d)(?=[\u00bc-\u00be\u2150-\u215e])")
_TYPOGRAPHY = str.maketrans({"\u2212": "-", "\u2044": "/", "\u00d7": "*", "\u00b7": "*", "\u22c5": "*"})
_TEX = [
    (re.compile(r"\\(?:text|textbf|mathrm|mathbf|mathsf)\s?\{([^{}]*+)\}"), r"\1"),
    (re.compile(r"\\[dtc]frac(?![a-z])"), r"\\frac"),
    (re.compile(r"(?<![\w)}/^])\\frac(?:\{(\d+)\}\{(\d+)\}|(\d)(\d))(?![\w^({\\])"), r"\1\3/\2\4"),
    (re.compile(r"\\(?:times|cdot)(?![a-z])"), "*"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[,;:! ()\[\]]|\\(?:left|right)(?![a-z])|[~$]"), " "),
    (re.compile(r"\\(?=[%#&])"), ""),
    (re.compile(r"_(?:\{(\w{1,3})\}|(\d)|(\w)(?!\w))"), r"\1\2\3"),
    (re.compile(r"\^\{(\d+|\w)\}(?![\d.])"), r"^\1"),
]
_SMALL = r"[({{]?(?P<{}>[+-]?\d{{1,3}})[)}}]?"
_QUANTITY = re.compile(
    rf"""
    (?:[a-z]\ ?=\ ?)?(?P<sign>[+-]?)
    (?:10\^{_SMALL.format("ten")}
      |(?:(?P<comma>\d{{1,3}}(?:\.\d{{3}})+,\d+|\d+,(?:\d{{1,2}}|\d{{4,}}))
        |(?P<point>(?:\d{{1,3}}(?:,\d{{3}})+|\d{{1,3}}(?:\ \d{{3}})+|\d+)(?:\.\d*)?|\.\d+))
       (?:\ ?/\ ?(?P<under>\d+)|[eE](?P<e>[+-]?\d{{1,3}})|\ ?[*x]\ ?10\^{_SMALL.format("times_ten")})?)
    (?:\ ?(?P<unit>%|[A-Za-z\u00b5\u03bc\u03a9\u00b0\u00c5][A-Za-z\u00b5\u03bc\u03a9\u00b0\u00c50-9/*^.\ -]*))?
    """,
    re.ASCII | re.VERBOSE,
)
_ROOT_OR_PI = re.compile(r"\\(?:sqrt|pi)(?![a-z])")
# Without e and i, which the parser takes for constants; @ stands for a fraction, # for a root or pi.
_ALPHABET = re.compile(r"[0-9a-df-hj-z.+*/^(){} @#-]++")
# Words, ranges and dates, which would coincide as products and differences; mixed numbers, for which the parser also
# takes "(2)(3)".
_UNCLEAR = re.compile(r"\*\s*\*|[a-z][\s(]*\d|[a-z]{2}|\d\s+\d|[\d)}]\s*[@(]|[)}]\s*\d|\.\d*\.|\d{16}|\A[\d./\s-]+\Z")
_EXPONENT = re.compile(r"\^[{(\s]*+-?(\d*+)")
_MAX_EXPRESSION, _MAX_SYMBOLS, _MAX_ROOTS, _MAX_BRACKETS, _MAX_DEGREE = 60, 3, 3, 8, 12


def normalised(column: str) -> pl.Expr:
    """Return the expression of ``normalise_answer`` over a text column; nulls stay null."""
    return pl.col(column).map_elements(normalise_answer, return_dtype=pl.String)


@lru_cache(maxsize=65_536)
def normalise_answer(text: str) -> str:
    """Return the form in which two open answers are compared; equal forms mean equal answers.

    Numbers and short expressions become their value. In other texts case, white space, LaTeX marks and trailing
    periods do not count.
    """
    return exact_value(text) or spelling(text).casefold()


@lru_cache(maxsize=65_536)
def exact_value(text: str) -> str | None:
    """Return the exact value of a number, quantity or short expression as text; None when it is none or too large."""
    if len(text) > _MAX_CHARS:
        return None
    plain = spelling(text)
    if match := _QUANTITY.fullmatch(plain):
        return _quantity(match)
    return _expression(plain) if _is_safe(plain) else None


def spelling(text: str) -> str:
    """Return the text without what does not count in any answer: LaTeX marks, white space, trailing periods."""
    marked = _SUPERSCRIPT.sub(lambda match: f"^{match[0]}", _MIXED_NUMBER.sub(" ", text))
    plain = unicodedata.normalize("NFKC", marked).translate(_TYPOGRAPHY)
    if len(text) <= _MAX_CHARS:
        for pattern, replacement in _TEX:
            plain = pattern.sub(replacement, plain)
    return " ".join(plain.split()).rstrip(". ")


def _quantity(match: re.Match[str]) -> str | None:
    if match["ten"]:
        value = Fraction(10) ** int(match["ten"])
    else:
        digits = match["point"] or match["comma"].replace(".", "").replace(",", ".")
        value = Fraction(digits.replace(",", "").replace(" ", "")) * Fraction(10) ** int(
            match["e"] or match["times_ten"] or 0
        )
        if match["under"]:
            if not int(match["under"]):
                return None
            value /= int(match["under"])
    value = -value if match["sign"] == "-" else value
    unit = re.sub(r"[ ^.]", "", match["unit"] or "")
    if unit.casefold() in {"%", "percent"}:
        return str(value / 100)
    # Case tells "mW" from "MW", but not "Meter" from "meter".
    return f"{value} {unit.casefold() if len(unit) > 4 else unit}".rstrip()


def _is_safe(plain: str) -> bool:
    """Whether a text is an expression whose value costs little; see the head of this module."""
    letters = _ROOT_OR_PI.sub("#", plain).replace("\\frac", "@")
    exponents = [match[1] for match in _EXPONENT.finditer(plain)]
    return (
        len(plain) <= _MAX_EXPRESSION
        and any(operator in plain for operator in "+-*/^(\\")
        and _ALPHABET.fullmatch(letters) is not None
        and not _UNCLEAR.search(letters)
        and len(set(letters) & set(ascii_lowercase)) <= _MAX_SYMBOLS
        and plain.count("sqrt") <= _MAX_ROOTS
        and plain.count("(") + plain.count("{") <= _MAX_BRACKETS
        and all(0 < len(exponent) <= 2 for exponent in exponents)
        and math.prod(max(1, int(exponent)) for exponent in exponents) <= _MAX_DEGREE
    )


def _expression(plain: str) -> str | None:
    """Return the canonical form of an expression that is safe; None when it cannot be parsed or has no finite value."""
    import sympy
    from latex2sympy2_extended import latex2sympy

    try:
        tree = latex2sympy(plain)
        if not isinstance(tree, sympy.Expr):
            return None
        value = sympy.radsimp(sympy.expand(sympy.nsimplify(tree, rational=True).doit()))
    except Exception:  # noqa: BLE001 - the parser raises bare Exception on what is no expression
        return None
    return str(value) if value.is_finite is not False else None
