r"""When two answers are the same: exact values of numbers and short expressions, else the same normalised text.

Numbers and their units are read by exact arithmetic, expressions such as ``\frac{\sqrt{2}}{2}`` by the parser of
math-verify, whose trees are unevaluated; math-verify's own ``parse`` takes words for products of letters, so that
anagrams coincide, and 1 000 for 0. Time is limited by what is let through, not by an alarm, which would depend on the
machine's load: short texts with few symbols, small powers and shallow brackets. All else is compared as text.
"""

import math
import re
import unicodedata
from fractions import Fraction
from functools import lru_cache

import polars as pl

_MAX_CHARS = 100  # keeps exact arithmetic cheap on runaway digit strings
_TYPOGRAPHY = str.maketrans(
    "\u2212\u2044\u00d7\u00b7\u22c5\u2080\u2081\u2082\u2083\u2084\u2085\u2086", "-/***0123456"
) | {0xB2: "^2", 0xB3: "^3", **{0x2070 + digit: f"^{digit}" for digit in range(4, 10)}}
_SPELLINGS = [
    (re.compile(r"\\(?:text|textbf|mathrm|mathbf|mathsf)\s?\{([^{}]*+)\}"), r"\1"),
    (re.compile(r"(?<![\w)}/^])\\[dtc]?frac\{(\d+)\}\{(\d+)\}(?![\w^({\\])"), r"\1/\2"),
    (re.compile(r"\\(?:times|cdot)(?![a-z])"), "*"),
    (re.compile(r"(?<=\d)(?:,| |\{,\})(?=\d{3}(?!\d))"), ""),
    (re.compile(r"\\[,;:! ()\[\]]|\\(?:left|right)(?![a-z])|[~$]|\\(?=[%#&])"), " "),
    (re.compile(r"([_^])\{(\d{1,3}|\w)\}(?![\d.])"), r"\1\2"),
    (re.compile(r"_(?=\d|\w(?!\w))"), ""),
    (re.compile(r"(?<=\d) ?[*x] ?10\^[({]?([+-]?\d{1,3})[)}]?(?![\w^.])"), r"e\1"),
    (re.compile(r"(?<![\w.^)}/])10\^[({]?([+-]?\d{1,3})[)}]?(?![\w^.])"), r"1e\1"),
]
_QUANTITY = re.compile(
    r"(?:[a-z] ?= ?)?\(?(?P<number>[+-]?(?:\d+ ?/ ?0*[1-9]\d*|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?))\)?"
    r"(?: ?(?P<unit>%|[A-Za-z\u00b5\u03bc\u03a9\u00b0\u00c5][A-Za-z\u00b5\u03bc\u03a9\u00b0\u00c50-9/*^. -]*))?",
    re.ASCII,
)
# Without e and i, which the parser takes for constants; @ stands for a fraction, # for a root or pi.
_ALPHABET = re.compile(r"(?=.*[-+*/^(@#])[0-9a-df-hj-z.+*/^(){} @#-]{2,60}+")
# Words, ranges and dates, which would coincide as products and differences, and mixed numbers.
_UNCLEAR = re.compile(
    r"\*\s*\*|[a-z][\s(]*\d|[a-z]{2}|\d\s+\d|[\d)}]\s*[@(]|[)}]\s*\d|\.\d*\.|\d{16}|\A[\d./\s-]+\Z"
    r"|(?:#[^#]*){4}|(?:[({][^({]*){9}"  # too many roots or brackets
)
_EXPONENT = re.compile(r"\^[{(\s]*+-?(\d*+)")


def normalised(column: str) -> pl.Expr:
    """Return the expression of ``normalise_answer`` over a text column; nulls stay null."""
    return pl.col(column).map_elements(normalise_answer, return_dtype=pl.String)


@lru_cache(maxsize=65_536)
def normalise_answer(text: str) -> str:
    """Return the form in which two open answers are compared, their value or text; equal forms mean equal answers."""
    return exact_value(text) or spelling(text).casefold()


@lru_cache(maxsize=65_536)
def exact_value(text: str) -> str | None:
    """Return the exact value of a number, quantity or short expression as text; None when it is none or too large."""
    if len(text) > _MAX_CHARS:
        return None
    plain = spelling(text)
    if (match := _QUANTITY.fullmatch(plain)) is None:
        return _expression(plain) if _is_safe(plain) else None
    value = Fraction(match["number"].replace(" ", ""))
    unit = re.sub(r"[ ^.]", "", match["unit"] or "")
    if unit.casefold() in {"%", "percent"}:
        return str(value / 100)
    # Case tells "mW" from "MW", but not "Meter" from "meter".
    return f"{value} {unit.casefold() if len(unit) > 4 else unit}".rstrip()


def spelling(text: str) -> str:
    """Return the text without what does not count in any answer: LaTeX marks, white space, trailing periods."""
    plain = unicodedata.normalize("NFC", text).translate(_TYPOGRAPHY)
    for pattern, replacement in _SPELLINGS if len(text) <= _MAX_CHARS else ():
        plain = pattern.sub(replacement, plain)
    return " ".join(plain.split()).rstrip(". ")


def _is_safe(plain: str) -> bool:
    letters = re.sub(r"\\[dtc]?frac(?![a-z])", "@", re.sub(r"\\(?:sqrt|pi)(?![a-z])", "#", plain))
    degree = math.prod(max(1, int(exponent or 99)) for exponent in _EXPONENT.findall(plain))
    few = len(set(filter(str.isalpha, letters))) <= 3 and degree <= 12
    return few and _ALPHABET.fullmatch(letters) is not None and not _UNCLEAR.search(letters)


def _expression(plain: str) -> str | None:
    import sympy
    from latex2sympy2_extended import latex2sympy

    try:
        value = sympy.radsimp(sympy.expand(sympy.nsimplify(latex2sympy(plain), rational=True).doit()))
    except Exception:  # noqa: BLE001 - the parser raises bare Exception on what is no expression
        return None
    return str(value) if isinstance(value, sympy.Expr) and value.is_finite is not False else None
