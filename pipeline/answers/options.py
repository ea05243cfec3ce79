"""Read which option stands beside an anchor: by its letter, its text, or an equal value.

A letter only counts when what follows shows that it stands alone: "A." and "A because" do, "A matter of" does not.
An option's text or value counts when nothing else is stated. A letter that is also the text of another option (blood
group "A") counts only where brackets, the word "option" or its own option's text mark it as a letter.
"""

import re
from collections.abc import Sequence
from functools import cached_property

from pipeline.answers.equivalence import exact_value, spelling
from pipeline.answers.values import (
    CLOSER,
    END_OF_LINE,
    INSTEAD,
    MARK,
    MARKS,
    REASON,
    Abstention,
    Extraction,
    abstain,
    read_open,
    skip,
)
from pipeline.prompts import LETTERS

_OR = r"and/or|or|and|through|oder|und|ou|et|of|en|o|y|e|или|и|或者?|和|または|か|또는"
_FILLERS = re.compile(
    rf"(?:{MARK}|[,:~\u2248]|(?:therefore|thus|hence|clearly|obviously|probably|likely|most|indeed|definitely|simply"
    r"|actually|again|of\scourse|approximately|roughly|about|I(?:,\s\w{1,20},)?\s(?:think|believe|guess|choose|pick|select)|either|both|in\s(?:fact|reality)"
    r"|option|choice|letter|answer|the|an|die|der|das|het|la|el|opci[óo]n|opção|opzione|letra|lettre|lettera"
    r"|alternativa|a(?=\s(?:letra|alternativa|opção)))\b"
    rf"|(?:not|nicht|niet)\s{INSTEAD}){{0,16}}+",
    re.IGNORECASE,
)
_NAMED_LETTER = re.compile(r"[(\[]|\b(?:option|choice|letter|opci[óo]n|opção|opzione|letra|lettre|alternativa)\b", re.I)
_ARTICLE = re.compile(r"an?\s++", re.IGNORECASE)
# Japanese, Chinese and Korean letters may follow at once; "N/A" and the list "I, II" are no letters.
_LETTER = re.compile(
    r"(?!N/A\b|I[,\s]++(?:(?:and|or)\s++)?I[IV]|I,\s(?!because|since|as\b|which|it\b|the\b|not\b)[a-z]++(?:\s[a-z]++)?,)"
    r"[A-Za-z](?!_*+(?![\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af])[^\W_])"
)
_CAPITAL_ALONE = re.compile(
    rf"{CLOSER}++(?!\w|\s*+\?)"
    rf"|{CLOSER}*+(?:[,;!<\u3002]|[.:](?!\w)|{END_OF_LINE}|\s++(?:[|}}]|is\b|{REASON})|(?<![AI])\s++[(\[]"
    r"|です|だ|である|입니다|이다|选项|項|项)"
)
_SMALL_ALONE = re.compile(rf"{CLOSER}*+[.)]?{CLOSER}*+{END_OF_LINE}")
_NEXT = (
    rf"{CLOSER}*+\s*+(?:(?P<sign>[,;/&+\u3001]|\((?=or\b))\s*+(?:(?:{_OR})(?=\W))?"
    rf"|(?:\\text\{{\s*+)?(?P<word>{_OR})(?=\W|[A-Z]))"
)
_SECOND_LETTER = re.compile(
    rf"{_NEXT}[\s}}]*+(?:(?:option|choice|maybe|perhaps|possibly|even)\s++){{0,2}}{MARK}{{0,16}}+(?P<letter>[A-Z](?!\w)|(?<=\()[a-z](?=\)))"
)
_SECOND_TEXT = re.compile(rf"{_NEXT}[\s}}]*+{MARK}{{0,16}}+")
_TEXT_ENDS = re.compile(
    rf"{CLOSER}*+(?:{END_OF_LINE}|\s*+</|\s*+\||,?\s++{REASON}|,\s++(?:the|an?|it|not|so|where)\b"
    rf"|\u3002|[.!,]{CLOSER}*+(?:{END_OF_LINE})|[.!]{CLOSER}*+\s|\s*+[(\[](?:option\s|choice\s)?(?P<letter>[A-Z])[)\]])"
)
_NOTHING_ELSE = re.compile(rf"{CLOSER}*+[.!]?{CLOSER}*+\s*+\Z")
_SEPARATORS = re.compile(rf"(?:{MARK}|[)\]}}.:,\u2013\u2014-]){{0,16}}+")
_VALUE_ENDS = re.compile(rf",?\s{REASON}|[.;]\s")
_TRUTH = {"true": True, "yes": True, "correct": True, "false": False, "no": False, "incorrect": False}


class Options:
    """The options of a question, ready to be found in its responses."""

    def __init__(self, options: Sequence[str]) -> None:
        self._options = options
        self._max_value = 40 + 2 * max(map(len, options))  # characters that may state a value, marks included
        truths = [_TRUTH.get(option.casefold()) for option in options]
        self.are_verdicts = len(truths) == 2 and set(truths) == {True, False}
        """Whether the options are true and false, or synonyms of them."""
        self._texts = [(_bare(option), index, False) for index, option in enumerate(options)]
        if self.are_verdicts:
            self._texts = [(word, truths.index(truth), True) for word, truth in _TRUTH.items()]

    def read(self, text: str, at: int, rule: str, prose: bool) -> Extraction | None:
        """Read the option that stands at ``at``; None when none does.

        In ``prose`` the small letters a and i are words unless they are bracketed.
        """
        plain, filled = skip(MARKS, text, at), skip(_FILLERS, text, at)
        for position in dict.fromkeys((plain, filled, skip(_ARTICLE, text, filled))):
            if found := self._read_text(text, position, rule):
                return found
        before = text[at:filled]
        small_is_word = prose and not any(bracket in before for bracket in "([{")
        named = _NAMED_LETTER.search(before) is not None or text[filled + 1 : filled + 2] == ")"
        found = self._read_letter(text, filled, rule, small_is_word, named)
        for position in () if found else dict.fromkeys((at, filled)):
            found = found or self._read_equal(text, position, rule, prose)
        return found

    def read_letter(self, text: str, at: int, rule: str) -> Extraction | None:
        """Return the option that the letter at ``at`` names; abstains when there are fewer options.

        None for an "X" that is no option: it quotes an instruction such as "Answer: X".
        """
        index = LETTERS.index(text[at].upper())
        if index < len(self._options):
            return self._found(index, rule, at, at + 1)
        return None if text[at] == "X" else abstain(Abstention.OUT_OF_RANGE)

    def read_whole(self, text: str) -> Extraction | None:
        """Read a text that is nothing but an option, a letter, or a letter and its option."""
        start = skip(MARKS, text, 0)
        matches, end = self._longest_texts(text, start)
        if len(matches) == 1 and end > start + 1 and _NOTHING_ELSE.match(text, end):
            return self._found(matches[0], "whole", start, end)
        at = skip(_FILLERS, text, 0)
        if not _LETTER.match(text, at):
            return None
        separated = _NOTHING_ELSE.match(text, skip(_SEPARATORS, text, at + 1))
        found = self.read_letter(text, at, "whole")
        if found and found.index is not None and _NOTHING_ELSE.match(text, self._own_text_end(text, at, found.index)):
            return found
        return self._read_letter(text, at, "whole", False, "(" in text[:at]) if separated else None

    def _found(self, index: int, rule: str, start: int, end: int) -> Extraction:
        return Extraction(self._options[index], index, rule, (start, end))

    def _read_text(self, text: str, at: int, rule: str, one_letter: bool = False) -> Extraction | None:
        matches, end = self._longest_texts(text, at, rule)
        if not matches or one_letter != bool(_LETTER.fullmatch(text[at:end])):
            return None
        second = _SECOND_TEXT.match(text, end)
        if second and set(self._longest_texts(text, second.end(), rule)[0]) - set(matches):
            return abstain(Abstention.AMBIGUOUS)
        ends = _TEXT_ENDS.match(text, end)
        if ends is None:
            return None
        if len(matches) > 1 or (ends["letter"] and LETTERS.index(ends["letter"]) != matches[0]):
            return abstain(Abstention.AMBIGUOUS)
        return self._found(matches[0], rule, at, end)

    def _read_letter(self, text: str, at: int, rule: str, small_is_word: bool, named: bool) -> Extraction | None:
        if not _LETTER.match(text, at):
            return None
        found, small = self.read_letter(text, at, rule), text[at].islower()
        is_word = small and small_is_word and text[at] in "ai"
        if (found is None or found.index is None or is_word) and (
            as_text := self._read_text(text, at, rule, one_letter=True)
        ):
            return as_text
        if found is None or is_word:
            return None
        after = self._one_letter_end(text, at)
        if after is None:
            return abstain(Abstention.AMBIGUOUS)
        if found.index is not None and self._own_text_end(text, at, found.index) > at + 1:
            return found
        closed = text[at + 1 : at + 2] in {")", "]", "}"}
        if not (_SMALL_ALONE if small and not closed else _CAPITAL_ALONE).match(text, after):
            return None
        return abstain(Abstention.AMBIGUOUS) if self._contradicted(text, at, found.index, named) else found

    def _one_letter_end(self, text: str, at: int) -> int | None:
        """Return where the statement of the letter at ``at`` ends; None if it is the first of several, "A or B"."""
        second = _SECOND_LETTER.match(text, at + 1)
        if second is None:
            return at + 1
        if second["letter"].upper() == text[at].upper():
            return second.end()
        surely_letter = (second["word"] and second["letter"] not in "AI") or second["sign"] in {"/", "&", "+"}
        return None if surely_letter or _CAPITAL_ALONE.match(text, second.end()) else at + 1

    def _contradicted(self, text: str, at: int, index: int | None, named: bool) -> bool:
        """Whether another option has the letter as its text, unless it is ``named``, or its text after the letter."""
        if not named and any(wanted == text[at] and other != index for wanted, other, _ in self._texts):
            return True
        start = skip(_SEPARATORS, text, at + 1)
        matches, end = self._longest_texts(text, start)
        return end > start + 1 and index not in matches and _TEXT_ENDS.match(text, end) is not None

    def _read_equal(self, text: str, at: int, rule: str, prose: bool) -> Extraction | None:
        """Read a value that equals exactly one option's, as "0.5" does "1/2"."""
        stated = read_open(text, at, rule, prose, self._max_value)
        if stated is None or stated.span is None:
            return None
        start, end = stated.span
        cut = _VALUE_ENDS.search(text, start, end)
        for stop in dict.fromkeys((end, cut.start() if cut else end)):
            if len(equal := self._equal(text[start:stop])) == 1:
                return self._found(equal[0], rule, start, stop)
        return None

    def _equal(self, value: str) -> list[int]:
        if (exact := exact_value(value)) is not None:
            # "0.5" may be meant for "0.5%", so that it is not read as "50%".
            equal = [index for index, option in enumerate(self._exact) if option == exact]
            percent = "%" in value or "percent" in value
            return [index for index in equal if percent or "%" not in self._options[index]]
        plain = spelling(value)
        return [index for index, option in enumerate(self._plain) if option == plain]

    @cached_property
    def _exact(self) -> list[str | None]:
        return [exact_value(option) for option in self._options]

    @cached_property
    def _plain(self) -> list[str]:
        return [spelling(option) for option in self._options]

    def _longest_texts(self, text: str, at: int, rule: str = "") -> tuple[list[int], int]:
        """Return the options whose text stands at ``at``, longest and exact ones only, and where it ends."""
        found: list[tuple[int, bool, int]] = []
        for wanted, index, any_case in self._texts:
            said = text[at : at + len(wanted)]
            same = said == wanted or ((any_case or _is_word_like(wanted)) and said.casefold() == wanted.casefold())
            if wanted and same and not (rule == "answer_is" and self._is_praise(wanted)):
                found.append((len(wanted), said == wanted, index))
        best = max((entry[:2] for entry in found), default=(0, False))
        return [entry[2] for entry in found if entry[:2] == best], at + best[0]

    def _is_praise(self, word: str) -> bool:
        """Whether "the answer is correct" would speak of an answer instead of giving one."""
        return self.are_verdicts and "correct" in word and word not in (option.casefold() for option in self._options)

    def _own_text_end(self, text: str, at: int, index: int) -> int:
        """Return where the option's text ends if it follows its letter at ``at``, else the letter's end."""
        start, wanted = skip(_SEPARATORS, text, at + 1), _bare(self._options[index])
        end = start + len(wanted)
        said = text[start:end].casefold() == wanted.casefold() and not text[end : end + 1].isalnum()
        return end if wanted and said else at + 1


def _is_word_like(option: str) -> bool:
    """Whether case carries no meaning, unlike in "5 mW" and "5 MW", or "AA" and "Aa"."""
    return len(option) > 3 and not any(character.isdigit() for character in option)


def _bare(option: str) -> str:
    """Return an option's text without the marks that are skipped in a response."""
    return option[skip(MARKS, option, 0) :].rstrip(" .*_\"'`$)]}\u201d\u2019")
