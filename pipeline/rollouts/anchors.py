"""Where a response may state an answer: the words that announce it.

Anchors are matched without regard to case. Repetitions are possessive or bounded, so a scan is linear.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_ANCHOR = re.compile(
    r"""
      \\f?boxed\s*+(?P<boxed>\{)
    | "(?:final_|correct_)?answer"\s*+(?P<json>:)
    | <answer(?P<tag>>)
    | ^[ \t\#*_]*+(?:final[ ]|correct[ ])?answer[ \t*_]*+(?P<heading>\n)
    | \b(?:answer|option|choice)[\s*_'`]*+(?P<colon>[:\uff1a])
    | \b(?:answer|option|choice)
      (?:\s++(?:to|for|of|here|in|choice|option|letter)\b[^.:\n]{0,80}?)?
      \s++(?P<answer_is>is|must\ be|should\ be|would\ be|will\ be)\b
    | (?:\b(?P<noun>option|choice|answer|letter)\s++|(?<![\w.'\u2019-]))[("'*_\[`]{0,4}+
      (?P<is_correct>(?-i:[A-Z]))[)"'*_\]`]{0,4}+
      \s++is\s++(?:indeed\s++|therefore\s++|thus\s++)?
      (?:(?P<named>the\s++answer\b)
        |(?:the\s++)?(?:most\s++|only\s++)?(?:correct|right|accurate|appropriate|best)\b
         (?P<also_named>\s++(?:answer|option|choice)\b)?+)
      (?!\s*+,?\s*+(?:but|however|that|about|only|if|when|except|although|though|or\ not)\b)
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
_LOOK_BACK = 80
_HYPOTHETICAL = re.compile(
    r"""
    (?:\b(?:if|whether|suppose|supposing|assume|assuming|unless|wonder\w*)
      |(?:n't|n\u2019t|\bnot|\bnever)\s+(?:think|believe|say|mean|that|claim|conclude))
    (?:\s+(?:that|the|an?|this|correct|right|final|best|only|most|likely|option|choice|answer))*
    [\s("'*_\[]*$
    """,
    re.IGNORECASE | re.VERBOSE,
)
_ALTERNATIVE = re.compile(
    r"(?<!\w)[A-Z][)\]*_\"']*\s*(?:\bor|\band|\bnor|/|&|,)\s*(?:option\s+|choice\s+)?[(\[*_\"']*$"
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
        return self.rule == "answer_is"


def find_anchors(text: str) -> Iterator[Anchor]:
    """Yield the announcements in order, without those that are hypothetical or denied."""
    for match in _ANCHOR.finditer(text):
        rule = match.lastgroup if match["is_correct"] is None else "is_correct"
        before = text[max(0, match.start() - _LOOK_BACK) : match.start()]
        if rule not in {"answer_is", "is_correct"}:
            yield Anchor(str(rule), match.end(str(rule)))
        elif not _HYPOTHETICAL.search(before):
            if rule == "answer_is":
                yield Anchor(rule, match.end(rule))
            elif match["noun"] or match["named"] or match["also_named"]:
                listed = _ALTERNATIVE.search(text[max(0, match.start() - _LOOK_BACK) : match.start("is_correct")])
                yield Anchor("is_correct", match.start("is_correct"), one_of_several=listed is not None)
