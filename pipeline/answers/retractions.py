"""Where a response takes an answer back or corrects it: the words of both.

Matched without regard to case. Repetitions are possessive or bounded, so a scan is linear.
"""

import re

SENTENCE = r"(?:(?<=[.!?;,\n(\u2026\u2014\u2013\u3002])|\A)[\s*_]{0,8}+"
"""Start of a sentence or clause."""
INTERJECTION = (
    r"(?:(?:but|no|nope|oh|hm{1,4}|actually|sorry|oops|wait|pardon|apologies|my\s(?:mistake|bad)|on\sreflection"
    r"|just\skidding|instead|better|nein|moment|entschuldigung|nee|non|en\sfait|perd[óo]n|en\srealidad|anzi|scusa|não|na\sverdade|нет|точнее)(?!\w)|不对|不對|いや|아니)"
    r"[,.!:\u2026\u2014\u3002\s]{0,4}+"
)
CORRECTION = (
    r"\b(?:correction|edit|update|erratum|korrektur|correctie|corrección|correzione|correção|исправление)"
    r"|更正|修正|訂正|정정"
)
"""Label of a correction, before its colon."""
IT_IS = (
    r"(?:(?:it|that|this)(?:['\u2019]s|\s(?:is|must\sbe|should\sbe|should\shave\sbeen))"
    r"|make\s(?:that|it)|es(?:\sist)?|è|é|c['\u2019]est)(?!\w)|应该是|應該是"
)
MEANT = (
    r"(?:I\smeant?(?:\sto\ssay)?|make\sthat|ich\smeint?e|je\s(?:voulais|veux)\sdire|quise\sdecir|volevo\sdire"
    r"|quis\sdizer)\b"
)
_WITHDRAWAL = r"""
    (?:(?:please|so)\s)?(?:disregard|forget|strike|scratch|ignore)\s(?:that|this|it|(?:my|the)\s(?:\w{1,20}\s)?answer)\b
    |never\s?mind(?=\s*+[.,;!\n]|\s*+\Z)
    |(?:that|this|my|the)\s(?:(?:previous|first|last|final)\s)?answer\s(?:above\s)?(?:is|was)\s
     (?:wrong|incorrect|not\s(?:right|correct))\b
    |I(?:['\u2019]ve)?\s(?:(?:have\s)?(?:made\s(?:a\smistake|an\serror)|misread|misunderstood|changed\smy\smind)
      |was\swrong|take\s(?:that|this|it)\sback|retract|(?:strongly\s)?disagree|meant)\b
"""
# Only after an interjection: "this is wrong" alone is what an explanation says of the other options.
_DENIAL = r"""
    (?:that|this|it)(?:['\u2019]s|\s(?:is|was))\s(?:wrong|incorrect|not\s(?:right|correct)|a\smistake)\b
    |(?:that|this|it)\s(?:cannot|can\snot|can['\u2019]t|isn['\u2019]t)\s(?:be\s)?(?:right|correct)\b
    |(?:das\sist\sfalsch|dat\sis\sfout|c['\u2019]est\sfaux|es\s(?:falso|incorrecto)|è\ssbagliato|está\serrado)\b
"""
_RETRACTION = re.compile(
    rf"""
    {SENTENCE}
    (?:(?:{INTERJECTION}){{0,3}}+(?:{_WITHDRAWAL}|on\ssecond\sthoughts?\b)
      |(?:(?:{INTERJECTION}){{1,4}}+|however,?\s)(?:{_DENIAL})
      |(?:(?:but|no|oh|hm{{1,4}}|actually|sorry|oops|however)\b[,.!\u2026\s]{{0,4}}+){{0,3}}+
       (?:wait|hold\son)\b\s?[,.!:;\u2026\u2014-]
      |(?:不对|不對|错了)
      |(?:{CORRECTION.replace("edit|update|", "")})[ \t*_]*+:
      |(?:(?:{INTERJECTION}){{1,4}}+(?:(?:{IT_IS})\s)?|(?:or|perhaps|maybe|possibly)\b[,\s]{{0,2}}+
         (?:(?:maybe|perhaps)\s)?(?:(?:{IT_IS}|is\sit|it\s(?:might|could|may)\sbe)\s)?
         |(?:however,?\s)?(?:it|that)\sshould\s(?:be|have\sbeen)\s)
       (?:option\s)?[("'*]{{0,4}}+(?P<rival>(?-i:[A-Z]))(?![\w'\u2019])(?!(?<=[AI])\s(?-i:[a-z]))
       (?![)"'*]{{0,4}}\s(?:is|was)\s(?:wrong|incorrect|not)\b))
  | \A["')*\]}}$\u201d\u2019]{{0,8}}+,?\s(?:some|many|most|people|they)\s(?:would\s)?
    (?:say|claim|think|believe)\b
  | \b(?:I\smeant?|or\srather)\s[\d$\\]
  | \A["')*\]}}$\u201d\u2019]{{0,8}}+\s(?:is|was)\s(?:wrong|incorrect|false|not|mistaken)\b
  | \b(?:answer\sis|it\sis|it['\u2019]s)\s(?:\w{{1,20}}\s)?not\s[("'*]{{0,4}}(?P<not>(?-i:[A-Z]))\b
  | (?<![\w'\u2019-])[("'*]{{0,4}}+(?P<wrong>(?-i:[A-Z]))[)"'*]{{0,4}}+\s(?:is|was)\s
    (?:wrong|incorrect|not\s(?:right|correct|the\s\w{{1,20}}\s?answer))\b
    """,
    re.IGNORECASE | re.VERBOSE,
)


def is_retracted(rest: str, letter: str | None) -> bool:
    """Whether ``rest``, which follows a statement of ``letter`` (none for an open answer), takes the statement back."""
    for match in _RETRACTION.finditer(rest):
        denied = match["not"] or match["wrong"]
        if denied and denied != letter:
            continue
        if match["rival"] is None or match["rival"] != letter:
            return True
    return False
