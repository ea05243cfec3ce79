"""Where a response may state an answer, and where it takes one back: the words that announce either.

Matched without regard to case. Repetitions are possessive or bounded, so a scan is linear.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_NOUN = "answer|option|choice"
_FOREIGN = "antwoord|antwort|r[ée]ponse|respuesta|risposta|resposta|ответ"
_QUALITY = "correct[ea]|corretta|correta|giusta|certa|exact[ea]|finale?"
_CJK = "答案|选项|選項|正解|答え|回答|解答|정답|답"
_APPEARS = r"(?:is|must\ be|should\ be|would\ be|will\ be)\b"

# One named group a rule, which ends where the value begins; of two rules at one place the first counts.
_RULES = rf"""
    (?P<boxed>\\(?:boxed|fbox)\s*+\{{)
  | (?P<json>["'](?:\w{{1,20}}_)?(?:answer|choice)["']\s*+:)
  | (?P<tag><(?:final_?)?answer>)
  | (?P<heading>^[ \t\#*_]*+(?:final[ ]|correct[ ])?answer[ \t*_]*+(?=\n))
  | (?P<colon>\b(?:{_NOUN}|ans|{_FOREIGN})[\s*_'`]*+:
      | \b(?:answer|ans)(?:[\s*_]*+(?:=>?|->|→|\|)|\s++[-\u2013\u2014]\s|(?<=\bans)\.)
      | (?:{_CJK})\s*+:)
  | (?P<answer_is>\b(?:{_NOUN})
        (?:\s++(?:to|for|of|here|in|choice|option|letter)\b[^.:\n]{{0,80}}?|,\s\w{{1,20}},)?\s++{_APPEARS}
      | \b(?:{_FOREIGN})(?:\s++(?:{_QUALITY}))?\s++(?:ist|lautet|is|est|es|[èé]|[-\u2013\u2014])(?!\w)
      | (?:{_CJK})\s*+(?:应?[是为為]|は|은|는)
      | (?<!不)选择?\s*+:?(?=\s*+[\W_]{{0,4}}+[A-Z]\b)
      | \b(?:I|we)(?:\s(?:will|would)|['\u2019](?:ll|d))?\s(?:choose|pick|select|go\swith)\b)
  | (?P<statement_is>\b(?:statement|claim|assertion|proposition)\s++is\b)
  | (?:\b(?P<noun>option|choice|answer|letter)\s++|(?<![\w.'\u2019-]))[("'*_\[`]{{0,4}}+
    (?P<is_correct>(?-i:[A-Z]))[)"'*_\]`]{{0,4}}+
    \s++is\s++(?:indeed\s++|therefore\s++|thus\s++)?
    (?:(?P<named>the\s++answer\b)
      |(?:the\s++)?(?:most\s++|only\s++)?(?:correct|right|accurate|appropriate|best)\b
       (?P<also_named>\s++(?:answer|option|choice)\b)?+)
    (?!\s*+,?\s*+(?:but|however|that|about|only|if|when|except|although|though|or\ not)\b)
"""
_ANCHOR = re.compile(_RULES, re.IGNORECASE | re.MULTILINE | re.VERBOSE)
_PROSE = {"answer_is", "statement_is"}
_LOOK_BACK = 80
_HYPOTHETICAL = re.compile(
    r"""
    (?:\b(?:if|whether|suppose|supposing|assume|assuming|unless|wonder\w*|false|(?:nobody|no\s\w+)\s(?:thinks|says))
      |(?:n't|n\u2019t|\bnot|\bnever)\s+(?:think|believe|say|mean|that|claim|conclude))
    (?:\s+(?:that|the|an?|this|correct|right|final|best|only|most|likely|option|choice|answer))*
    [\s("'*_\[]*$
    """,
    re.IGNORECASE | re.VERBOSE,
)
_WRONG = re.compile(r"\b(?:wrong|incorrect|false|worst)[ \t]+$", re.IGNORECASE)
_ALTERNATIVE = re.compile(
    r"(?<!\w)[A-Z][)\]*_\"']*\s*(?:\bor|\band|\bnor|/|&|,)\s*(?:option\s+|choice\s+)?[(\[*_\"']*$"
)

# Only after an interjection: "this is wrong" alone is what an explanation says of the other options.
_INTERJECTION = r"(?:but|no|oh|hm{1,4}|actually|sorry|oops|however)\b[,.!\u2026\s]{0,4}+"
_RETRACTION = re.compile(
    rf"""
    (?:(?<=[.!?\n])|\A)[\s*_]{{0,8}}+
    (?:(?:{_INTERJECTION}){{0,3}}+(?:(?:wait|hold\son)\b\s?[,.!:;\u2026\u2014-]|scratch\sthat\b|on\ssecond\sthoughts?\b)
      |(?:{_INTERJECTION}){{1,3}}+(?:wait\s)?
       (?:(?:that|this|it)(?:['\u2019]s|\s(?:is|was))\s(?:wrong|incorrect|not\s(?:right|correct)|a\smistake)\b
         |(?:that|this|it)\s(?:cannot|can\snot|can['\u2019]t|isn['\u2019]t)\s(?:be\s)?(?:right|correct)\b
         |I\s(?:have\s)?(?:made\sa\smistake|made\san\serror|was\swrong)\b))
  | \b(?:answer\sis|it\sis|it['\u2019]s)\s(?:\w{{1,20}}\s)?not\s[("'*]{{0,4}}(?P<not>(?-i:[A-Z]))\b
  | (?<![\w'\u2019-])[("'*]{{0,4}}+(?P<wrong>(?-i:[A-Z]))[)"'*]{{0,4}}+\s(?:is|was)\s
    (?:wrong|incorrect|not\s(?:right|correct|the\s\w{{1,20}}\s?answer))\b
    """,
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True)
class Anchor:
    """One announcement of an answer."""

    rule: str
    """Kind of the announcement, as stored in the ``extraction`` column."""
    value_at: int
    """Where the value begins; for ``is_correct`` the letter itself."""
    one_of_several: bool = False
    """Whether the letter is the last of a list such as "A or B"; only for ``is_correct``."""

    @property
    def is_prose(self) -> bool:
        """Whether the value is part of a sentence, where "a" is an article."""
        return self.rule in _PROSE


def find_anchors(text: str) -> Iterator[Anchor]:
    """Yield the announcements in order, without those that are hypothetical or denied."""
    for match in _ANCHOR.finditer(text):
        rule = str(match.lastgroup) if match["is_correct"] is None else "is_correct"
        before = text[max(0, match.start() - _LOOK_BACK) : match.start()]
        if _WRONG.search(before) or (rule in _PROSE | {"is_correct"} and _HYPOTHETICAL.search(before)):
            continue
        if rule != "is_correct":
            yield Anchor(rule, match.end(rule))
        elif match["noun"] or match["named"] or match["also_named"]:
            listed = _ALTERNATIVE.search(text[max(0, match.start() - _LOOK_BACK) : match.start("is_correct")])
            yield Anchor("is_correct", match.start("is_correct"), one_of_several=listed is not None)


def is_retracted(rest: str, letter: str | None) -> bool:
    """Whether ``rest``, which follows a statement of ``letter`` (none for an open answer), takes the statement back."""
    denied = (match["not"] or match["wrong"] for match in _RETRACTION.finditer(rest))
    return any(said is None or said == letter for said in denied)
