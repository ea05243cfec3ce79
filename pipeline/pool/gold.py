"""Label firewall: the gold answer of a row, read apart from its question and stored apart from the pool."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.pool.question import clean_text, is_storable
from pipeline.prompts import LETTERS

_LETTER = re.compile(r"\(?([A-Za-z])[).]?")
MAX_ANSWER_CHARS = 20_000
_INDEX = re.compile(r"\d{1,2}")


@dataclass(frozen=True)
class Gold:
    """The right answer of a question."""

    text: str
    """Text of the right option, or the reference answer of an open question."""
    index: int | None
    """Index of the right option, from 0; None for an open question."""


def has_answer(value: object) -> bool:
    """Return whether a source gives any answer: not null and not blank."""
    return value is not None and not (isinstance(value, str) and not value.strip())


def resolve_gold(value: object, options: Sequence[str]) -> Gold | None:
    """Return the gold answer that ``value`` names, or None when it names none or could name two.

    With options, an integer is an index from 0; a text is an option's text, its letter (``B``, ``b``, ``(B)``, ``B.``)
    or the digits of its index. A text that fits two options in different readings is not used: a wrong gold answer
    does more harm than a missing one. Without options it is the answer's text, up to ``MAX_ANSWER_CHARS``.
    """
    if type(value) not in (str, int, float):  # bool is an int
        return None
    text = clean_text(str(value))
    if not options:
        return Gold(text, None) if 0 < len(text) <= MAX_ANSWER_CHARS and is_storable(text) else None
    named = {value} if isinstance(value, int) else _readings(text, options)
    index = named.pop() if len(named) == 1 else -1
    return Gold(options[index], index) if 0 <= index < len(options) else None


def _readings(text: str, options: Sequence[str]) -> set[int]:
    named = {index for index, option in enumerate(options) if option == text}
    if letter := _LETTER.fullmatch(text):
        named.add(LETTERS.index(letter[1].upper()))
    if _INDEX.fullmatch(text):
        named.add(int(text))
    return {index for index in named if index < len(options)}
