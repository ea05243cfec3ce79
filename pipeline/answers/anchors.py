"""Where a response may state an answer: the words that announce one, and those that only suppose or report it.

Matched without regard to case. Repetitions are possessive or bounded, so a scan is linear.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.answers.retractions import CORRECTION, INTERJECTION, IT_IS, MEANT, SENTENCE
from pipeline.answers.values import INSTEAD

_NOUN = "answer|option|choice"
_FOREIGN = "antwoord|antwort|r[ée]ponse|respuesta|risposta|resposta|ответ"
_QUALITY = "correct[ea]|corretta|correta|giusta|certa|exact[ea]|finale?"
_CJK = "答案|选项|選項|正解|答え|回答|解答|정답|답"
_NOT = r"(?:no|non|não|не)\s(?:es|è|é)?\s?|n['\u2019]est\spas\s"
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
        (?:\s++(?:to|for|of|here|in|choice|option|letter)\b[^.:\n]{{0,80}}?|,\s\w{{1,20}},)?
        \s++(?:{_APPEARS}|isn['\u2019]t\s{INSTEAD})
      | \b(?:{_FOREIGN})(?:(?:\s++(?:{_QUALITY}))?\s++(?:ist|lautet|is|est|es|[èé]|[-\u2013\u2014])(?!\w)
        |\s(?:{_NOT}){INSTEAD})
      | (?:{_CJK})(?:\s*+(?:应?[是为為]|は|은|는)|不是\s*+[A-Z][,\s]{{0,2}}而是)
      | (?<!不)选择?\s*+:?(?=\s*+[\W_]{{0,4}}+[A-Z]\b)
      | \b(?:I|we)(?:\s(?:will|would)|['\u2019](?:ll|d))?\s(?:choose|pick|select|go\swith)\b
        (?!\s\S++\sas\s(?:an?|our|my|its|the)\s(?!(?:final\s|correct\s|best\s|right\s)?(?:{_NOUN}))))
  | (?P<correction>(?:{CORRECTION})[ \t*_]*+\d?[ \t*_]*+:)
  | (?P<revision>\bor\s(?:rather|better)\b,?
      | {SENTENCE}(?:{MEANT},?|(?:{INTERJECTION}){{1,4}}+(?:{MEANT},?|{IT_IS}|(?!\W{{0,4}}[A-Z]\W{{0,4}}\s(?:is|was)\b)
          (?=[^\n.:,;?!\u3002]{{1,60}}+[.!\u3002)*_"]{{0,4}}+[ \t]*+$))))
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
_PROSE = {"answer_is", "statement_is", "correction", "revision"}
_LOOK_BACK = 80
# What may stand between "think" and "answer is"; a new line begins a new sentence unless it goes on in small letters.
_TAIL = r"""(?:(?:[ \t]+|[ \t]*\n(?=(?-i:[a-z])))(?:that|the|an?|this|correct|right|final|best|only|most|likely|option
    |choice|answer|que|la|che|het|bonne|mejor|правильный)\b|,[ \t](?:dass|die|что)\b)*[ \t("'*_\[\u201c\u2018]*\Z"""
_HYPOTHETICAL = re.compile(
    rf"""
    (?:\b(?:if|when|whether|suppose|supposing|assume|assuming|unless|wonder\w*|perhaps|maybe|possibly
        |cannot\s(?:say|claim|conclude)|(?:nobody|no\s\w+)\s(?:thinks|says))
      |(?:n't|n\u2019t|\bnot|\bnever|\bhardly)\s+(?:really\s+|quite\s+)?(?:think|believe|say|mean|that|claim|conclude|agree
        |sure|certain|convinced|true|right|correct|clear|obvious|follow)
      |(?<!\bno\s)(?<!\bnot\s)(?<!n't\s)(?<!n\u2019t\s)(?<!\bcannot\s)(?<!\bwithout\s)(?<!\bbeyond\s)
       \b(?:doubt\w*|deny|denies|disagree|untrue|false|wrong|incorrect)(?:\s+to\s+\w+)?
      |\b(?:reject|refuse|unlikely|impossible|mistake|misconception|misleading|myth|fallacy|tempting|absurd|error)
       (?:\s+to\s+\w+)?
      |\bno\s+(?!doubt|question|denying)\w+\s+(?:that|to\s+\w+)
      |\b(?:would|could|might|may)\s+(?:mean|imply|suggest)
      |\b(?:idea|notion|belief|view|assumption|hypothesis|possibility|theory|rumou?r)\s+that
      |\b(?:his|her|their|(?:student|friend|teacher|colleague|classmate|user)s?['\u2019]s?)
      |\b(?:si|(?<!per\ )se|als|если)
      |(?:如果|假如|假设|若|もし|만약)正?确?的?)
    {_TAIL}
    """,
    re.IGNORECASE | re.VERBOSE,
)
# "Some say", "I thought", but not "I say", "to say"; with a quotation mark also before "Answer:".
_MINE = r"\b(?:I|we|to|wir|ich)(?:['\u2019](?:d|ll|m))?\s(?:(?!have\b)\w{1,12}\s){0,2}?"
_REPORT = re.compile(
    rf"""
    (?P<mine>{_MINE}(?:say|think|believe|claim|guess|suppose|argue|expect|feel|denken|glauben|meinen)\b{_TAIL})
    |(?:\b(?:say|think|believe|claim|guess|argue|expect|feel|insist|imagine|assert)s?
      |\b(?:said|thought|believed|claimed|guessed|argued|(?<!\bas\ )expected|felt|told(?:\s\w+)?|wrote|written|insisted)
      |\b(?:sagen|denken|glauben|meinen|behaupten|zeggen|pensent|croient|disent|creen|piensan|dicen|credono
        |pensano|dicono|acham|pensam|dizem|думают|считают|говорят)
      |(?:人|人们|大家|学生|他|她)[^。,\n]{{0,4}}(?:认为|以为|觉得|说)正?确?的?)
    (?P<quote>[,:]?\s*["'\u201c\u2018\u00ab](?:(?:the|my)\b)?)?{_TAIL}
    """,
    re.IGNORECASE | re.VERBOSE,
)
_WRONG = re.compile(r"\b(?:wrong|incorrect|false|worst)[ \t]+$", re.IGNORECASE)
_ALTERNATIVE = re.compile(
    r"(?<!\w)[A-Z][)\]*_\"']*\s*(?:\bor|\band|\bnor|/|&|,)\s*(?:option\s+|choice\s+)?[(\[*_\"']*$"
)
_OTHER_STATEMENT = re.compile(
    r"(?:boxed\{[^{}\n]{0,40}\}[)\]*$\\]*[ \t]*(?:\bor|\band|\bnor|/|&|,)|(?<!\w)[A-Z][)\]}*_\"'$]*[ ]or)"
    r"[ \t]*(?:(?:the|that|maybe|perhaps)[ ])*[(\[*_\"'$\\]*\Z"
)
_INTERJECTED = re.compile(rf"{SENTENCE}(?:{INTERJECTION}){{1,3}}[(\[*_\"']*$", re.IGNORECASE)


@dataclass(frozen=True)
class Anchor:
    """One announcement of an answer."""

    rule: str
    """Kind of the announcement, as stored in the ``extraction`` column."""
    value_at: int
    """Where the value begins; for ``is_correct`` the letter itself."""
    one_of_several: bool = False
    """Whether it is the last of a list such as "A or B is correct" or "the answer is A or the answer is B"."""

    @property
    def is_prose(self) -> bool:
        """Whether the value is part of a sentence, where "a" is an article."""
        return self.rule in _PROSE


def find_anchors(text: str) -> Iterator[Anchor]:
    """Yield the announcements, last first, without those that are supposed, reported or denied."""
    for match in reversed(list(_ANCHOR.finditer(text))):
        rule = str(match.lastgroup) if match["is_correct"] is None else "is_correct"
        before = text[max(0, match.start() - _LOOK_BACK) : match.start()]
        if _WRONG.search(before) or _is_not_asserted(before, rule):
            continue
        if rule != "is_correct":
            yield Anchor(rule, match.end(rule), one_of_several=_OTHER_STATEMENT.search(before) is not None)
        elif match["noun"] or match["named"] or match["also_named"] or _INTERJECTED.search(before):
            listed = _ALTERNATIVE.search(text[max(0, match.start() - _LOOK_BACK) : match.start("is_correct")])
            yield Anchor("is_correct", match.start("is_correct"), one_of_several=listed is not None)


def _is_not_asserted(before: str, rule: str) -> bool:
    """Whether the words before an announcement suppose, report or deny it."""
    report = _REPORT.search(before)
    if rule not in _PROSE | {"is_correct"}:
        return report is not None and report["quote"] is not None
    return _HYPOTHETICAL.search(before) is not None or (report is not None and report["mine"] is None)
