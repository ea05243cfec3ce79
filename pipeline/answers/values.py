"""What an extraction is, and where the value beside an announcement of an answer stands."""

import re
from dataclasses import dataclass
from enum import StrEnum


class Abstention(StrEnum):
    """Why a response has no answer: all reasons that the ``extraction`` column holds for a sampled response."""

    EMPTY = "empty"  # nothing is left outside of thoughts
    UNFINISHED_THOUGHT = "unfinished_thought"  # the response ends inside a thought
    UNFINISHED_ANSWER = "unfinished_answer"  # cut right behind its last statement, which may go on: "sodium" chloride
    NO_STATEMENT = "no_statement"  # nothing that can be read, or last "unknown", or no plain assertion
    AMBIGUOUS = "ambiguous"  # the last statement fits several options
    OUT_OF_RANGE = "out_of_range"  # the last statement is a letter beyond the options
    RETRACTED = "retracted"  # what follows may take the last statement back


@dataclass(frozen=True)
class Extraction:
    """The answer that a response states, or why there is none."""

    answer: str | None  # text of the option, or of an open answer; none is an abstention
    index: int | None  # of the option, from 0
    rule: str  # that found the answer, or the reason of an abstention
    span: tuple[int, int] | None  # characters of the response that state the letter or the text


def abstain(reason: Abstention) -> Extraction:
    """Return an extraction without answer."""
    return Extraction(answer=None, index=None, rule=reason.value, span=None)


# White space, Markdown, quotes, brackets and LaTeX that may stand before a value, and behind it.
MARK = r"""(?:[\s*_"'`$(\[{\#|>\u201c\u2018]|<(?=[A-Za-z]>)|\\[(\[]|\\(?:text|textbf|mathrm|mathbf|boxed)\b)"""
CLOSER = r"""(?:[*_"'`$)\]}>\u201d\u2019]|\\[)\]])"""
# What is no vote.
REFUSAL = re.compile(rf"""(?xi){MARK}{{0,16}}+
    (?:I(?:\sam|['\u2019]m)?\s(?:do\s?not|don['\u2019]t|can\s?not|can['\u2019]t|not|unsure)\b|n/a\b
    |cannot\sbe\s(?:determined|answered)\b|not\senough\sinformation\b|(?:unknown|not\ssure)(?=[\W_]*+(?:\n|\Z)|[.,;]))""")
_START = re.compile(r"\s*+:?[\s*`>]*+(?:(?<=\n)-\s[\s*`]*+)?")
# Not after "Dr.", but before a word that begins a sentence.
_SENTENCE_END = re.compile(
    r"""(?:(?<=\w{4})|(?<=[\d)\]}$"]))\.\s++(?=[A-Z])|\.\s++(?=(?:Its?|This|These|They|The|In|As)\b)"""
)
_BRACED = re.compile(r"(?:[^{}\n]|\{(?:[^{}\n]|\{(?:[^{}\n]|\{[^{}\n]*+\})*+\})*+\})*+(?=\})")
_JSON = re.compile(r""""((?:[^"\\\n]|\\.)*+)"|'([^'\n]*+)'|(?![\[{])([^,}\n]*+)""")
_WRAPPED = re.compile(r"""(?x)
    \s*(?:\$([^$]+)\$|\\\(([^\n]+)\\\)|"([^"]+)"|'([^']+)'|`([^`]+)`|\*+([^*]+)\*+
    |\\(?:text|textbf|mathrm|boxed)\{([^{}]+)\})[\s.*]*""")


def skip(pattern: re.Pattern[str], text: str, at: int, stop: int | None = None) -> int:
    """Return where a match of ``pattern`` at ``at`` ends, or ``at``."""
    match = pattern.match(text, at, len(text) if stop is None else stop)
    return match.end() if match else at


def value_span(text: str, at: int, rule: str, max_chars: int | None = None) -> tuple[int, int] | None:
    """Return where the value of an announcement stands, without the marks around it; None when there is none.

    It ends with its LaTeX or JSON group, its line, or in prose with its sentence, and at most ``max_chars`` on.
    """
    stop = len(text) if max_chars is None else min(len(text), at + max_chars)
    start, end = skip(_START, text, at, stop), stop
    if rule == "boxed" and (max_chars is None or _BRACED.match(text, at, stop)):  # an option may be read unclosed
        start, end = at, skip(_BRACED, text, at, stop)
    elif rule == "json" and (match := _JSON.match(text, start, stop)):
        start, end = match.span(match.lastindex or 0)
    elif rule != "whole" and (end := text.find("</" if rule == "tag" else "\n", start, stop)) < 0:
        end = stop
    if rule == "answer_is" and (sentence := _SENTENCE_END.search(text, start, end)):
        end = sentence.start()
    for _ in range(4):
        if inner := _WRAPPED.fullmatch(text, start, end):
            start, end = inner.span(inner.lastindex or 0)
    start = end - len(text[start:end].lstrip())
    end = start + len(text[start:end].rstrip(".*` \n\t\r"))
    return (start, end) if start < end else None
