"""Read the value beside an anchor: what an extraction is, the marks around values, and free text."""

import re
from dataclasses import dataclass
from enum import StrEnum


class Abstention(StrEnum):
    """Why a response has no answer: all reasons that the ``extraction`` column holds for a sampled response."""

    EMPTY = "empty"
    """Nothing is left outside of thoughts."""
    UNFINISHED_THOUGHT = "unfinished_thought"
    """The response ends inside a thought."""
    UNFINISHED_ANSWER = "unfinished_answer"
    """The response was cut right behind its last statement, which may go on: "sodium" chloride."""
    NO_STATEMENT = "no_statement"
    """No anchor has a value that can be read, or the last one says that the answer is not known."""
    AMBIGUOUS = "ambiguous"
    """The last statement fits several options."""
    OUT_OF_RANGE = "out_of_range"
    """The last statement is a letter beyond the options."""
    RETRACTED = "retracted"
    """The last statement is taken back and nothing takes its place."""


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


def abstain(reason: Abstention) -> Extraction:
    """Return an extraction without answer."""
    return Extraction(answer=None, index=None, rule=reason.value, span=None)


def _braced(depth: int) -> str:
    """Return a pattern of text on one line with balanced braces, nested so deep at most."""
    return r"(?:[^{}\n]" + (rf"|\{{{_braced(depth - 1)}\}}" if depth else "") + ")*+"


_HTML = r"(?-i:</?(?:b|i|em|strong|code|p)>)"
# Marks around a value: white space, Markdown, HTML, quotes, brackets, LaTeX. Runs of them are bounded, because they may
# hold further anchors, each of which is read in its turn.
MARK = (
    r"""(?:\s++|[*_"'`$(\[{\#|>\u201c\u2018\u00ab\u300c\u3010]|(?<=\n)[-\u2022]\s|"""
    rf"{_HTML}|<(?=[A-Za-z]>)|\\[(\[]|\\(?:text|textbf|mathrm|mathbf|mathsf|bf|rm|boxed|fbox)\b)"
)
CLOSER = rf"""(?:[*_"'`$)\]}}\u201d\u2019\u00bb\u300d\u3011>]|\\[)\]]|{_HTML})"""
END_OF_LINE = r"[^\w\n!-~]*+(?:\n|\Z)"  # emoji and the like do not count
REASON = r"(?:because|since|as|which|due)\b"
MARKS = re.compile(rf"{MARK}{{0,16}}+")
INSTEAD = (
    r"(?:option\s)?[(*]{0,3}(?-i:[A-Z])[)*]{0,3}[,;.]?\s"
    r"(?:but|rather|it['\u2019]s|it\sis|sondern|maar|mais|sino|ma|mas)\b"
)
"""After "not": the denied letter and the word that announces another."""
_REFUSAL = re.compile(
    rf"""(?:{MARK}|\\text\b){{0,16}}+(?:that\s|it\s)?(?:
    (?:I(?:['\u2019]m|\sam)?\s(?:honestly\s|really\s|simply\s)?
      (?:do\s?not|don['\u2019]t|cannot|can['\u2019]t|could\s?n[o\u2019']t|not|unsure|have\sno)\b)
    |(?:cannot|can['\u2019]t|could\snot)\sbe\s(?:determined|answered|known)\b
    |(?:not\senough|insufficient)\s(?:information|data)\b|no\s(?:idea|clue)\b|n/a\b
    |(?:unknown|unclear|unsure|uncertain|undetermined|not\s(?:sure|known|certain|given|applicable)|idk|unbekannt|inconnue?
      |desconocid[oa]|desconhecid[oa]|sconosciut[oa]|onbekend|неизвестно)(?=[\W_]*+(?:\n|\Z)|[.,;]|["*}}])
    |ich\swei(?:ß|ss)\s(?:es\s)?nicht|keine\sahnung|je\sne\ssais\spas|no\s(?:lo\s)?sé|non\s(?:lo\s)?so|não\ssei
    |不知道|不确定|未知|わかりません|分かりません|모르)""",
    re.IGNORECASE | re.VERBOSE,
)
_OPEN_START = re.compile(r"\s*+:?[\s*`]*+")
_SENTENCE_END = re.compile(r"""(?:(?<=\w{4})|(?<=[\d)\]}$"]))\.\s++(?=[A-Z])""")
_BRACED = re.compile(rf"{_braced(4)}(?=\}})")
_JSON_VALUE = re.compile(r""""((?:[^"\\\n]|\\.)*+)"|'([^'\n]*+)'|([^,}\n]*+)""")
_WRAPPED = re.compile(
    r"""\s*(?:\$(?P<math>[^$]+)\$|\\\((?P<tex>[^\n]+)\\\)|"(?P<quoted>[^"]+)"|'(?P<single>[^']+)'|`(?P<code>[^`]+)`|\*+(?P<bold>[^*]+)\*+"""
    r"""|\\(?:text|textbf|mathrm|boxed)\{(?P<text>[^{}]+)\}|\u201c(?P<curly>[^\u201d]+)\u201d)[\s.*]*"""
)


def skip(pattern: re.Pattern[str], text: str, at: int) -> int:
    """Return where a match of ``pattern`` at ``at`` ends, or ``at``."""
    match = pattern.match(text, at)
    return match.end() if match else at


def read_refusal(text: str, at: int) -> Extraction | None:
    """Read "unknown" and the like at ``at``, which are no votes; None when none stands there."""
    return abstain(Abstention.NO_STATEMENT) if _REFUSAL.match(text, at) else None


def read_open(text: str, at: int, rule: str, prose: bool, max_chars: int | None = None) -> Extraction | None:
    """Read free text at ``at`` to the end of its line, or of its sentence in ``prose``; None when there is none."""
    stop = len(text) if max_chars is None else min(len(text), at + max_chars)
    start = min(skip(_OPEN_START, text, at), stop)
    if prose and text[start : start + 4].casefold() == "not ":
        return None
    if rule == "boxed":
        end = skip(_BRACED, text, at)
    elif rule == "json" and (match := _JSON_VALUE.match(text, start, stop)):
        start, end = match.span(match.lastindex or 0)
    else:
        line_end = text.find("</" if rule == "tag" else "\n", start, stop)
        end = stop if line_end < 0 else line_end
    if prose and (sentence := _SENTENCE_END.search(text, start, end)):
        end = sentence.start()
    span = _unwrapped(text, start, end)
    return Extraction(text[slice(*span)], None, rule, span) if span[0] < span[1] else None


def _unwrapped(text: str, start: int, end: int) -> tuple[int, int]:
    """Return where the value stands without white space, a final period, quotes, Markdown and LaTeX around it."""
    for _ in range(4):
        if inner := _WRAPPED.fullmatch(text, start, end):
            start, end = inner.span(inner.lastgroup or 0)
    start = end - len(text[start:end].lstrip())
    value = text[start:end].rstrip().rstrip(".*` \u3002").rstrip()
    return start, start + len(value)
