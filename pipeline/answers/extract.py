r"""Find the answer that a response states: the last announced statement, never a guess.

A statement is an announcement ("Answer:", "the answer is", ``\boxed{``, ``"answer":``; "the capital of France is" where
that was asked) and the value beside it: an option's letter, text or equal value, or free text for an open question.
A response that is nothing but a letter or an option states it too. All else abstains. Repetitions in patterns are
possessive or bounded, so that time is linear.
"""

import re
from collections.abc import Sequence

from pipeline.answers.options import Options
from pipeline.answers.values import REFUSAL, Abstention, Extraction, abstain, value_span

__all__ = ["Extraction", "extract_answer", "opens_thought"]

_THOUGHT_TAG = re.compile(r"<(/?)(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
# Base models run on into invented questions and turns, whose answers are not the answer.
_NEXT_QUESTION = re.compile(r"""(?xi)
    (?<=\n)[ \t\#*]*+(?:(?:(?:Next|New|Another)[ ])?(?:Question|Q|Problem)[ \t]*+(?:\d*+[ \t*]*+:|\d++[.)* \t]*+\n)
      |(?:Problem|Example|Exercise)[ ](?:[2-9]|\d\d)\d*+[ *]*+(?:[:.)]|\n)|(?:User|Human)[ \t*]*+:)
    |\#\#[ ]?(?:Instruction|Input)\b|<\|\w+\|>|<(?:start|end)_of_turn>|</s>|\[INST\]""")
# One named group a rule, by which the ``extraction`` column calls it.
_ANNOUNCEMENT = re.compile(r"""(?xim)
    (?P<boxed>\\(?:boxed|fbox)\s*+\{) | (?P<json>["'](?:\w{1,20}_)?(?:answer|choice)["']\s*+:)
    |(?P<tag><(?:final_?)?answer>) | (?P<heading>^[ \t\#*_]*+(?:final[ ]|correct[ ])?answer[ \t*_]*+(?=\n))
    |(?P<colon>\b(?:answer|option|choice|ans)[\s*_'`]*+[:|])
    |(?P<answer_is>\b(?:answer|option|choice)(?:\s++(?:choice|option)|\s++(?:to|for)\s++(?:this|the)\s++question)?
      (?:,?\s++(?:therefore|thus),?)?\s++(?:is|must\s++be|should\s++be|would\s++be)\b)
    |(?P<is_correct>\b(?:option|choice))(?=\s[(*]{0,3}(?-i:[A-Z])[)*]{0,3}\sis\s(?:the\s)?(?:correct|right|best)\b)""")
# What may stand between the begin of a clause and an "answer is" that is not supposed, reported or denied.
_ASSERTED = re.compile(r"""(?xi)
    (?:[.!?:;,\n${})>\u2014]|\A|(?<!["'\u201c\u2018])(?<![a-z]\s)(?=(?-i:The|So|Thus|Therefore|Hence)\b))[\s*_\#$>(-]*+
    (?:(?:so|thus|therefore|hence|and|but|then|now|finally|overall|clearly|yes|this\ means|that|based\ on[^.,:;]{3,50}?
      |(?:I|we)(?:\ would|'d|\ can)?\ (?:think|believe|guess|say|see|find|conclude))\b,?\s+){0,4}
    (?:(?:the|my|our|your)\b\s*)?(?:[*_]{0,3}(?:final|correct|best|right|most|likely|appropriate|closest)\s+){0,4}
    [*_]{0,3}\Z""")
# Before other announcements: quoted, someone else's, or going on a list.
_DENIED = re.compile(r"""(?xi)
    (?:["'\u201c\u2018]|\b(?:wrong|incorrect|false|his|her|their|or)[ \t]|\}\$?[ ]?(?:and|/|&|,)[ ])[ $(]*\Z""")
# What takes a statement back; what it says instead is not read.
_RETRACTION = re.compile(r"""(?xi)
    (?:(?<=[.!?;,\n(\u2026\u2014\u2013])|\A)[\s*_"')\]}$]{0,8}+(?:(?:but|and|oh|so|please)\b[,\s]*+)?
    (?:(?:no|nope|wait|hold\ on|hm+|oops|sorry|apologies|pardon|correction|edit(?:\ \d)?|update|better|never\ ?mind)\b
        \s?(?=[,.!:;?*\u2026\u2014-]|\Z)
      |(?:actually|on\ (?:second\ thoughts?|reflection)|make\ that|or\ (?:rather|maybe|perhaps|is\ it)|I\ meant?
        |that\ answer|(?:some|they)\ say|scratch\ that|(?:perhaps|maybe)\ it|(?:disregard|forget|ignore)\ (?:that|my)
        |I(?:['\u2019]ve|\ have)?\ (?:was\ wrong|made|misread|changed|take\ (?:that|this|it)\ back|disagree))\b)
    |\b(?:it|that)\ should\ (?:be|have\ been)\ [(*"]*+(?-i:[A-Z])\b|\banswer\ (?:(?:is|was)\ (?:wrong|not)|isn't)\b
    |\A["')*\]}$]{0,8}+\s(?:is|was)\s(?:wrong|incorrect|not)\b""")
_ASKED = re.compile(r"(?:What|Which) (is|are) (the [^?.:\n]+?)(?: called)?\?")
"""A question that begins its own answer."""
_ASIDE = re.compile(r"\s\(|,\s(?:which|who|where|also|named|abbreviated|an?|the)\b")
_MAY_GO_ON = re.compile(r"(?:(?<=\d)[.,])?[ \t]*\Z")  # after a digit a point may begin decimals


def opens_thought(prompt: str) -> bool:
    """Return whether a rendered prompt ends with an open thought, as some chat templates make it."""
    tags = list(_THOUGHT_TAG.finditer(prompt.rstrip()))
    return bool(tags) and not tags[-1][1] and tags[-1].end() == len(prompt.rstrip())


def extract_answer(
    response: str, options: Sequence[str], finished: bool = True, question: str = "", in_thought: bool = False
) -> Extraction:
    """Return the answer that ``response`` states last, outside of thoughts; ``options`` is empty for an open question.

    A response that is not ``finished`` was cut by the length limit; one ``in_thought`` begins inside of a thought.
    ``question`` is the text of the question.
    """
    tags = list(_THOUGHT_TAG.finditer(response))
    if not tags[-1][1] if tags else in_thought:
        return abstain(Abstention.UNFINISHED_THOUGHT)
    text = response[tags[-1].end() if tags else 0 :].lstrip()
    start = len(response) - len(text)
    if run_on := _NEXT_QUESTION.search(text, 1):
        text = text[: run_on.start()]
    if not text:
        return abstain(Abstention.EMPTY)
    found = _last_statement(text, Options(options) if options else None, question)
    if found.span is None:
        return found
    # An open answer ends with its line, so that it may hold its own retraction.
    if _RETRACTION.search(text[found.span[found.index is not None] :]):
        return abstain(Abstention.RETRACTED)
    if not finished and not run_on and _MAY_GO_ON.match(text, found.span[1]):
        return abstain(Abstention.UNFINISHED_ANSWER)
    return Extraction(found.answer, found.index, found.rule, (start + found.span[0], start + found.span[1]))


def _last_statement(text: str, options: Options | None, question: str) -> Extraction:
    announcements = list(_ANNOUNCEMENT.finditer(text))
    if asked := _ASKED.fullmatch(question):
        # Articles are no part of an open answer, but may be of an option.
        article = "" if options else r"(?:\s(?:the|an?)\b)?"
        # A name may be quoted, and abbreviated behind.
        words = r"[\"'*]?\s[\"'*]?".join(map(re.escape, asked[2].split()))
        verb = rf"[\"'*]?(?:\s\(\w{{1,12}}\))?\s{asked[1]}\b(?:\s(?:called|named)\b)?"
        restated = rf"(?i)(?P<answer_is>\b{words}{verb}{article})"
        announcements = sorted([*announcements, *re.finditer(restated, text)], key=re.Match.start)
    for match in reversed(announcements):
        rule, at, window = match.lastgroup or "", match.end(), (max(0, match.start() - 80), match.start())
        found = options.read(text, at, rule) if options else _read_open(text, at, rule)
        in_prose = rule in {"answer_is", "is_correct"}
        asserted = _ASSERTED.search(text, *window) if in_prose else rule == "json" or not _DENIED.search(text, *window)
        if found or REFUSAL.match(text, at):
            return found if found and asserted else abstain(Abstention.NO_STATEMENT)
    return (options.read(text, 0, "whole") if options else None) or abstain(Abstention.NO_STATEMENT)


def _read_open(text: str, at: int, rule: str) -> Extraction | None:
    if rule == "is_correct" or REFUSAL.match(text, at) or text[at : at + 5].casefold() == " not ":
        return None
    if (span := value_span(text, at, rule)) is None:
        return None
    start, end = span
    if rule == "answer_is" and (aside := _ASIDE.search(text, start + 1, end)):
        end = aside.start()
    return Extraction(text[start:end], None, rule, (start, end))
