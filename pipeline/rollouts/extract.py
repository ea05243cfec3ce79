r"""Find the answer that a response states: the last anchored statement, never a guess.

A statement is an anchor ("Answer:", "the answer is", ``\boxed{``, ``"answer":``, "option B is correct") and the value
beside it: an option's letter, an option's text, or free text for an open question. A response that is nothing but a
letter or an option states it too. All else abstains with a reason: ``empty``, ``unfinished_thought``,
``no_statement``, ``ambiguous`` or ``out_of_range``. Pinned by ``tests/rollouts/test_extract.py``.
"""

import re
from collections.abc import Sequence

from pipeline.rollouts.anchors import Anchor, find_anchors
from pipeline.rollouts.values import Extraction, abstain, read_letter, read_open, read_option, read_whole

__all__ = ["Extraction", "extract_answer"]

_THOUGHT_TAG = re.compile(r"<(/?)think>", re.IGNORECASE)
# Base models run on into invented questions, whose answers are not the answer.
_NEXT_QUESTION = re.compile(r"(?<=\n)[ \t#*]*+(?:Question|Q)[ \t]*+\d*+[ \t*]*+:")


def extract_answer(response: str, options: Sequence[str]) -> Extraction:
    """Return the answer that ``response`` states last, outside of thoughts; ``options`` is empty for an open question.

    Takes time linear in the response.
    """
    tags = list(_THOUGHT_TAG.finditer(response))
    if tags and not tags[-1][1]:
        return abstain("unfinished_thought")
    start = tags[-1].end() if tags else 0
    start += len(response[start:]) - len(response[start:].lstrip())
    run_on = _NEXT_QUESTION.search(response, start + 1)
    text = response[start : run_on.start() if run_on else len(response)]
    if not text:
        return abstain("empty")
    found = _last_statement(text, options) or abstain("no_statement")
    return _shift(found, start)


def _last_statement(text: str, options: Sequence[str]) -> Extraction | None:
    for anchor in reversed(list(find_anchors(text))):
        if found := _read(text, anchor, options):
            return found
    return read_whole(text, options) if options else None


def _read(text: str, anchor: Anchor, options: Sequence[str]) -> Extraction | None:
    if not options:
        return None if anchor.rule == "is_correct" else read_open(text, anchor.value_at, anchor.rule, anchor.is_prose)
    if anchor.rule != "is_correct":
        return read_option(text, anchor.value_at, options, anchor.rule, anchor.is_prose)
    return abstain("ambiguous") if anchor.one_of_several else read_letter(text, anchor.value_at, options, anchor.rule)


def _shift(found: Extraction, by: int) -> Extraction:
    if found.span is None:
        return found
    return Extraction(found.answer, found.index, found.rule, (found.span[0] + by, found.span[1] + by))
