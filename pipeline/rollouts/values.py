"""Read the value beside an anchor: an option's letter, an option's text, or free text.

A letter only counts when what follows shows that it stands alone: "A." and "A because" do, "A matter of" does not.
An option's text counts when nothing else is stated. Where a letter is also the text of another option (blood group
"A"), it is read as the letter.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.prompts import LETTERS


def _braced(depth: int) -> str:
    """Return a pattern of text on one line with balanced braces, nested so deep at most."""
    return r"(?:[^{}\n]" + (rf"|\{{{_braced(depth - 1)}\}}" if depth else "") + ")*+"


# Marks around a value: white space, Markdown, quotes, brackets, LaTeX. Runs of them are bounded, because they may hold
# further anchors, each of which is read in its turn.
_MARK = r"""(?:\s++|[*_"'`$(\[{\u201c\u2018]|\\[(\[]|\\(?:text|textbf|mathrm|mathbf|mathsf|bf|rm|f?boxed)\b)"""
_CLOSER = r"""(?:[*_"'`$)\]}\u201d\u2019]|\\[)\]])"""
_END_OF_LINE = r"[^\S\n]*+(?:\n|\Z)"
_REASON = r"(?:because|since|as|which)\b"
_MARKS = re.compile(rf"{_MARK}{{0,16}}+")
_FILLERS = re.compile(
    rf"(?:{_MARK}|[,:]|(?:therefore|thus|hence|clearly|obviously|probably|likely|most|indeed|definitely|simply|actually"
    r"|again|of\scourse|option|choice|letter|answer|the|either|both)\b){0,16}+",
    re.IGNORECASE,
)
_LETTER = re.compile(r"[A-Za-z](?!\w)")
_CAPITAL_ALONE = re.compile(
    rf"{_CLOSER}++(?!\w|\s*+\?)"
    rf"|{_CLOSER}*+(?:[,;!<]|[.:](?!\w)|{_END_OF_LINE}|\s++(?:is\b|{_REASON})|(?<![AI])\s++[(\[])"
)
_SMALL_ALONE = re.compile(rf"{_CLOSER}*+[.)]?{_CLOSER}*+{_END_OF_LINE}")
_SECOND_LETTER = re.compile(
    rf"{_CLOSER}*+\s*+(?:[,;/&]\s*+(?:and/or\b|or\b|and\b)?|(?P<word>and/or|or|and)\b)\s*+(?:option\s++|choice\s++)?"
    rf"{_MARK}{{0,16}}+(?P<letter>[A-Z](?!\w)|(?<=\()[a-z](?=\)))"
)
_TEXT_ENDS = re.compile(
    rf"{_CLOSER}*+(?:{_END_OF_LINE}|\s*+</|,?\s++{_REASON}|[.!]{_CLOSER}*+(?:\s|\Z)"
    r"|\s*+[(\[](?:option\s|choice\s)?(?P<letter>[A-Z])[)\]])"
)
_NOTHING_ELSE = re.compile(rf"{_CLOSER}*+[.!]?{_CLOSER}*+\s*+\Z")
_SEPARATORS = re.compile(rf"(?:{_MARK}|[)\]}}.:,\u2013\u2014-]){{0,16}}+")
_OPEN_START = re.compile(r"\s*+:?[\s*_`]*+")
_SENTENCE_END = re.compile(r"""(?:(?<=\w{4})|(?<=[\d)\]}$"]))\.\s++(?=[A-Z])""")
_BRACED = re.compile(rf"{_braced(4)}(?=\}})")
_JSON_VALUE = re.compile(r'"((?:[^"\\\n]|\\.)*+)"|([^,}\n]*+)')


@dataclass(frozen=True)
class Extraction:
    """The answer that a response states, or why there is none."""

    answer: str | None
    """Text of the option, or of an open answer; none is an abstention."""
    index: int | None
    """Index of the option, from 0."""
    rule: str
    """Rule that found the answer, or the reason of an abstention."""
    span: tuple[int, int] | None
    """Characters of the response that state the letter or the text."""

    @property
    def letter_at(self) -> int | None:
        """Where the response states the option's letter; none where it states a text."""
        return self.span[0] if self.span and self.index is not None and self.span[1] - self.span[0] == 1 else None


def abstain(reason: str) -> Extraction:
    """Return an extraction without answer."""
    return Extraction(answer=None, index=None, rule=reason, span=None)


def read_option(text: str, at: int, options: Sequence[str], rule: str, prose: bool) -> Extraction | None:
    """Read the option's text or letter at ``at``; None when neither stands there.

    In ``prose`` a small letter is a word unless it is bracketed.
    """
    plain, filled = _skip(_MARKS, text, at), _skip(_FILLERS, text, at)
    for position in dict.fromkeys((plain, filled)):
        if found := _read_text(text, position, options, rule):
            return found
    bracketed = any(bracket in text[at:filled] for bracket in "([{")
    return _read_letter(text, filled, options, rule, capital=prose and not bracketed)


def read_letter(text: str, at: int, options: Sequence[str], rule: str) -> Extraction:
    """Return the option that the letter at ``at`` names; abstains when there are fewer options."""
    index = LETTERS.index(text[at].upper())
    return Extraction(options[index], index, rule, (at, at + 1)) if index < len(options) else abstain("out_of_range")


def read_whole(text: str, options: Sequence[str]) -> Extraction | None:
    """Read a text that is nothing but an option, a letter, or a letter and its option."""
    at = _skip(_MARKS, text, 0)
    matches, end = _longest_options(text, at, options)
    if len(matches) == 1 and _NOTHING_ELSE.match(text, end):
        return Extraction(options[matches[0]], matches[0], "whole", (at, end))
    if not _LETTER.match(text, at):
        return None
    found = read_letter(text, at, options, "whole")
    if _NOTHING_ELSE.match(text, _skip(_SEPARATORS, text, at + 1)):
        return found
    return found if found.answer and _NOTHING_ELSE.match(text, _own_text_end(text, at + 1, found.answer)) else None


def read_open(text: str, at: int, rule: str, prose: bool) -> Extraction | None:
    """Read free text at ``at`` to the end of its line, or of its sentence in ``prose``; None when there is none."""
    start = _skip(_OPEN_START, text, at)
    if prose and text[start : start + 4].casefold() == "not ":
        return None
    if rule == "boxed":
        end = _skip(_BRACED, text, at)
    elif rule == "json" and (match := _JSON_VALUE.match(text, start)):
        start, end = match.span(1) if match[1] is not None else match.span(2)
    else:
        line_end = text.find("<" if rule == "tag" else "\n", start)
        end = len(text) if line_end < 0 else line_end
    if prose and (stop := _SENTENCE_END.search(text, start, end)):
        end = stop.start()
    value = text[start:end].strip().rstrip(".*_` ").strip()
    if len(value) > 2 and value[0] == value[-1] == "$":
        value = value[1:-1]
    return Extraction(value, None, rule, (start, end)) if value else None


def _skip(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _read_text(text: str, at: int, options: Sequence[str], rule: str, one_letter: bool = False) -> Extraction | None:
    matches, end = _longest_options(text, at, options)
    ends = _TEXT_ENDS.match(text, end)
    if not matches or ends is None or one_letter != bool(_LETTER.fullmatch(text[at:end])):
        return None
    if len(matches) > 1 or (ends["letter"] and LETTERS.index(ends["letter"]) != matches[0]):
        return abstain("ambiguous")
    return Extraction(options[matches[0]], matches[0], rule, (at, end))


def _read_letter(text: str, at: int, options: Sequence[str], rule: str, capital: bool) -> Extraction | None:
    """Read a letter; ``capital`` refuses a small one."""
    if not _LETTER.match(text, at):
        return None
    found = read_letter(text, at, options, rule)
    small = text[at].islower()
    unlettered = found.index is None or (small and capital)
    if unlettered and (named := _read_text(text, at, options, rule, one_letter=True)):
        return named
    if small and capital:
        return None
    if _second_letter(text, at):
        return abstain("ambiguous")
    closed = small and text[at + 1 : at + 2] in {")", "]", "}"}
    alone = _SMALL_ALONE if small and not closed else _CAPITAL_ALONE
    if alone.match(text, at + 1) or (found.answer and _own_text_end(text, at + 1, found.answer) > at + 1):
        return found
    return None


def _second_letter(text: str, at: int) -> bool:
    """Whether the letter at ``at`` is the first of several, as in "A or B"."""
    second = _SECOND_LETTER.match(text, at + 1)
    if second is None or second["letter"].upper() == text[at].upper():
        return False
    surely_letter = second["word"] is not None and second["letter"] not in "AI"
    return surely_letter or _CAPITAL_ALONE.match(text, second.end()) is not None


def _longest_options(text: str, at: int, options: Sequence[str]) -> tuple[list[int], int]:
    """Return the options whose text stands at ``at``, longest and exact ones only, and where it ends."""
    found: list[tuple[int, bool, int]] = []
    for index, option in enumerate(options):
        wanted = _bare(option)
        said = text[at : at + len(wanted)]
        if wanted and (said == wanted or (_is_word_like(wanted) and said.casefold() == wanted.casefold())):
            found.append((len(wanted), said == wanted, index))
    best = max((entry[:2] for entry in found), default=(0, False))
    return [entry[2] for entry in found if entry[:2] == best], at + best[0]


def _is_word_like(option: str) -> bool:
    """Whether case carries no meaning, unlike in "5 mW" and "5 MW", or "AA" and "Aa"."""
    return len(option) > 3 and not any(character.isdigit() for character in option)


def _bare(option: str) -> str:
    """Return an option's text without the marks that are skipped in a response."""
    return option[_skip(_MARKS, option, 0) :].rstrip(" .*_\"'`$)]}\u201d\u2019")


def _own_text_end(text: str, at: int, option: str) -> int:
    """Return where the option's text ends if it follows its letter, else ``at``."""
    start, wanted = _skip(_SEPARATORS, text, at), _bare(option)
    end = start + len(wanted)
    said = text[start:end].casefold() == wanted.casefold() and not text[end : end + 1].isalnum()
    return end if wanted and said else at
