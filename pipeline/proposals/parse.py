"""Reading what the model wrote as a question: in the form of its examples, or not at all.

What the model wrote is data: it fills fields, is checked as a row of any source is, and is never run or rendered.
"""

import re
from collections.abc import Sequence
from typing import Final

from pipeline.pool.config import RawPoolConfig
from pipeline.pool.question import Question, parse_question
from pipeline.pool.source import Problem
from pipeline.prompts import LETTERS

_LABEL: Final = re.compile(r"(?i)\A[\s*#]*(?:(?:new )?(?:question|example)\b[ \t]*\d*[*]*[:.)]?|\d+[.)])[\s*]*")
"""What may stand before a question and is no part of it."""
_OPTION: Final = re.compile(r"\s*\(?([A-Z])[.):]\s+(\S.*?)\s*\Z")
_FIELDS: Final = RawPoolConfig()


def read_question(text: str, domain: str, has_options: bool) -> Question | str:
    """Return the question that a response states, or what is wrong with it.

    The lines up to the first option are the question, lines "A. ..." in the order of the letters its options; what
    follows is left out, such as an answer or a second question.

    Args:
        text: What the model wrote.
        domain: Domain to give the question.
        has_options: Whether the examples had options; a question of the other form was not asked for.
    """
    lines = _LABEL.sub("", text, count=1).strip().splitlines()
    first = next((i for i, line in enumerate(lines) if _letter(line) == "A"), len(lines))
    if has_options != (first < len(lines)):
        return "no options, as the examples have" if has_options else "options, which the examples do not have"
    if not has_options:  # an open question is one paragraph
        first = next((i for i, line in enumerate(lines) if not line.strip()), len(lines))
    question, options = "\n".join(lines[:first]).strip(), _options(lines[first:]) if has_options else []
    if "?" not in question and not has_options:
        return "no question mark"
    values = {"question": question, "options": options, "domain": domain}
    found = parse_question(values, _FIELDS)
    return found.detail if isinstance(found, Problem) else found


def _letter(line: str) -> str | None:
    found = _OPTION.match(line)
    return found[1] if found else None


def _options(lines: Sequence[str]) -> list[str]:
    """Return the texts of lines that begin with A, B, C ... as far as they go on so."""
    options = []
    for line, letter in zip((line for line in lines if line.strip()), LETTERS, strict=False):
        found = _OPTION.match(line)
        if not found or found[1] != letter:
            break
        options.append(found[2])
    return options
