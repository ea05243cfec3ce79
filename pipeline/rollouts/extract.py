r"""Find the answer that a response states: the last anchored statement, never a guess.

A statement is an anchor ("Answer:", "the answer is", ``\boxed{``, ``"answer":``, "option B is correct") and the value
beside it: an option's letter, text or equal value, or free text for an open question. A response that is nothing but a
letter or an option states it too. All else abstains, with a reason of ``Abstention``. Pinned by the hand-written
outputs in ``tests/rollouts/corpus``.
"""

import re
from collections.abc import Sequence

from pipeline.prompts import LETTERS
from pipeline.rollouts.anchors import Anchor, find_anchors, is_retracted
from pipeline.rollouts.options import Options
from pipeline.rollouts.values import Abstention, Extraction, abstain, read_open

__all__ = ["Extraction", "extract_answer"]

_THOUGHT_TAG = re.compile(r"<(/?)(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
# Base models run on into invented questions, whose answers are not the answer.
_NEXT_QUESTION = re.compile(r"(?<=\n)[ \t#*]*+(?:Question|Q)[ \t]*+\d*+[ \t*]*+:")
# Full-width forms, one character each, so that positions stay.
_FULL_WIDTH = {0xFEE0 + code: code for code in range(0x21, 0x7F)} | {0x3000: 0x20}


def extract_answer(response: str, options: Sequence[str]) -> Extraction:
    """Return the answer that ``response`` states last, outside of thoughts; ``options`` is empty for an open question.

    Takes time linear in the response.
    """
    tags = list(_THOUGHT_TAG.finditer(response))
    if tags and not tags[-1][1]:
        return abstain(Abstention.UNFINISHED_THOUGHT)
    start = tags[-1].end() if tags else 0
    start += len(response[start:]) - len(response[start:].lstrip())
    run_on = _NEXT_QUESTION.search(response, start + 1)
    text = response[start : run_on.start() if run_on else len(response)].translate(_FULL_WIDTH)
    if not text:
        return abstain(Abstention.EMPTY)
    found = _last_statement(text, Options(options)) if options else _last_open_statement(text)
    if found is None or found.span is None:
        return found or abstain(Abstention.NO_STATEMENT)
    if is_retracted(text[found.span[1] :], LETTERS[found.index : found.index + 1] if found.index is not None else None):
        return abstain(Abstention.RETRACTED)
    span = (start + found.span[0], start + found.span[1])
    answer = response[slice(*span)] if found.index is None else options[found.index]
    return Extraction(answer, found.index, found.rule, span)


def _last_statement(text: str, options: Options) -> Extraction | None:
    for anchor in reversed(list(find_anchors(text))):
        if found := _read(text, anchor, options):
            return found
    return options.read_whole(text)


def _read(text: str, anchor: Anchor, options: Options) -> Extraction | None:
    if anchor.rule == "is_correct":
        found = abstain(Abstention.AMBIGUOUS) if anchor.one_of_several else None
        return found or options.read_letter(text, anchor.value_at, anchor.rule)
    if anchor.rule == "statement_is" and not options.are_verdicts:
        return None
    return options.read(text, anchor.value_at, anchor.rule, anchor.is_prose)


def _last_open_statement(text: str) -> Extraction | None:
    for anchor in reversed(list(find_anchors(text))):
        if anchor.rule in {"is_correct", "statement_is"}:
            continue
        if found := read_open(text, anchor.value_at, anchor.rule, anchor.is_prose):
            return found
    return None
