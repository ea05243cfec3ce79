"""Read which option a value names: by its letter, its text, or an equal value.

A letter only counts when what follows shows that it stands alone: "A." and "A because" do, "A matter of" does not. One
that is also the text of another option (blood group "A") counts only with a bracket or its own option's text.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from pipeline.answers.equivalence import exact_value, spelling
from pipeline.answers.values import CLOSER, MARK, Abstention, Extraction, abstain, skip, value_span
from pipeline.prompts import LETTERS

_MARKS = re.compile(rf"{MARK}{{0,16}}+")
_FILLERS = re.compile(rf"""(?xi)(?:{MARK}|[,:]|(?:therefore|thus|hence|clearly|definitely|probably|likely|most|indeed
    |in\sfact|approximately|about|option|choice|letter|answer|the|an)\b){{0,16}}+""")
_SEPARATORS = re.compile(rf"(?:{MARK}|[)\]}}.:,\u2013\u2014-]){{0,16}}+")
_TRAILING = " .!*_\"'`$)]}\n\u201d\u2019"
_LETTER = re.compile(r"[A-Z](?!_*+[^\W_])|[a-z](?=[)\]]|[.*_`\s]*\Z)")
_REASON = r",?\s++(?:because|since|as|which|due)\b"
_ALONE = re.compile(rf"""(?x){CLOSER}*+
    (?:(?<=[)\]}}*_"'`$>])(?!\w|\s*+\?|\s++is\b)|[.:!;](?!\w)|(?<![AI]),|{_REASON}|\s++[|}}]|[^\w\n!-~]*+(?:\n|\Z)
    |\s++is\s(?:the\s)?(?:correct|right|best)(?:\s(?:answer|option|choice))?(?:[.!*]|{_REASON}|\Z))""")
_SECOND = re.compile(rf"""(?x){CLOSER}*+\s*+(?:[,/&+]|\b(?:or|and|through)\b|\\text|[({{])
    (?:{MARK}|(?:option|choice|maybe|or|and)\b){{0,9}}+(?:[A-Z](?!\w)|(?<=\()[a-z](?=\)))""")
# Where a value may end before its line does; behind an option's text its letter may follow.
_CUT = re.compile(rf"""(?x){CLOSER}*+
    (?:[.!]\s|{_REASON}|,\s(?:the|not)\b|\s++\||\s*+[(\[](?:option\s)?(?P<letter>[A-Z])[)\]])""")


class Options:
    """The options of a question, ready to be found in its responses."""

    def __init__(self, options: Sequence[str]) -> None:
        self._options = options
        self._max_value = 60 + 2 * max(map(len, options))  # characters that may state a value, marks included

    def read(self, text: str, at: int, rule: str) -> Extraction | None:
        """Read the option that is stated at ``at``; None when none is. By the rule ``whole`` it must end the text."""
        if (span := value_span(text, at, rule, len(text) if rule == "whole" else self._max_value)) is None:
            return None
        start, end = span
        letter_at = skip(_FILLERS, text, start, end)
        return (
            self._read_text(text, start, end, rule)
            or self._read_text(text, letter_at, end, rule)
            or self._read_letter(text, letter_at, end, rule)
        )

    def _read_text(self, text: str, start: int, end: int, rule: str, least: int = 2) -> Extraction | None:
        """Read a value that is an option's text, or equals it as "0.5" does "1/2"."""
        cut = _CUT.search(text, start, end) if rule != "whole" else None
        for stop in dict.fromkeys((end, cut.start() if cut else end)):
            said = text[start:stop]
            hits = [] if len(_bare(said)) < least and _bare(said).isalpha() else self._equal(said)
            letter = cut["letter"] if cut and stop < end else None
            if len(hits) > 1 or (hits and letter and LETTERS.index(letter) != hits[0]):
                return abstain(Abstention.AMBIGUOUS)
            if hits:
                length = len(said.rstrip(_TRAILING) or said)  # an option may be nothing but marks
                return Extraction(self._options[hits[0]], hits[0], rule, (start, start + length))
        return None

    def _read_letter(self, text: str, at: int, end: int, rule: str) -> Extraction | None:
        is_article = rule == "answer_is" and text[at - 1 : at + 1] in {" a", " i"}
        if is_article or not _LETTER.match(text, at, end):
            return None
        index, after = LETTERS.index(text[at].upper()), skip(_SEPARATORS, text, at + 1, end)
        stated = self._read_text(text, after, end, rule, least=1) if at + 1 < after else None
        if (stated and stated.index != index) or (not stated and _SECOND.match(text, at + 1, end)):
            return abstain(Abstention.AMBIGUOUS)
        if not stated:
            if not _ALONE.match(text, at + 1, end) or (rule == "whole" and text[at + 1 : end].strip(_TRAILING)):
                return None
            spelled = [other for other, option in enumerate(self._options) if _bare(option) == text[at]]
            if spelled not in ([], [index]) and text[at - 1 : at] != "(" and text[at + 1 : at + 2] != ")":
                if index < len(self._options):
                    return abstain(Abstention.AMBIGUOUS)
                index = spelled[0]
        if index >= len(self._options):  # "Answer: X" quotes an instruction
            return None if text[at] == "X" else abstain(Abstention.OUT_OF_RANGE)
        return Extraction(self._options[index], index, rule, (at, at + 1))

    def _equal(self, said: str) -> list[int]:
        for form in (_bare, _word, _value):
            wanted = form(said)
            if hits := [index for index, option in enumerate(self._options) if wanted and form(option) == wanted]:
                return hits
        return []


def _bare(text: str) -> str:
    return text[skip(_MARKS, text, 0) :].rstrip(_TRAILING)


def _word(text: str) -> str:
    """Return a text whose case carries no meaning, unlike in "5 mW" and "5 MW", or "AA" and "Aa"."""
    word = _bare(text).casefold()
    return word if (len(word) > 3 or word in {"yes", "no"}) and not any(map(str.isdigit, word)) else ""


@lru_cache(maxsize=65_536)
def _value(text: str) -> str:
    """Return the value of a text; "0.5" may be meant for "0.5%", so that it is not read as "50%"."""
    return f"{'%' * ('%' in text or 'percent' in text)}{exact_value(text) or spelling(text)}"
