r"""Find the answer that a response states: the last anchored statement, never a guess.

A statement is an anchor ("Answer:", "the answer is", ``\boxed{``, ``"answer":``, "option B is correct") and the value
beside it: an option's letter, text or equal value, or free text for an open question. A response that is nothing but a
letter or an option states it too. All else abstains, with a reason of ``Abstention``. Pinned by the hand-written
outputs in ``tests/rollouts/corpus``.
"""

import re
from collections.abc import Sequence

from pipeline.answers.anchors import Anchor, find_anchors
from pipeline.answers.options import Options
from pipeline.answers.retractions import is_retracted
from pipeline.answers.values import Abstention, Extraction, abstain, read_open, read_refusal
from pipeline.prompts import LETTERS

__all__ = ["Extraction", "extract_answer"]

_THOUGHT_TAG = re.compile(r"<(/?)(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
# Base models run on into invented questions and turns, whose answers are not the answer.
_NEXT_QUESTION = re.compile(
    r"""
    (?<=\n)[ \t\#*]*+(?:
      (?:(?:Next|New|Another)[ ])?(?:Question|Q|Problem|Frage|Vraag|Pregunta|Domanda|Pergunta|Вопрос|问题|問題|题目|질문
        |문제)[ \t]*+(?:\d*+[ \t*]*+:|\d++[ \t*]*+[.)]?[ \t*]*+\n)
      |(?:Problem|Example|Exercise)[ \t]++(?:[2-9]|\d\d)\d*+[ \t*]*+(?:[:.)]|\n)
      |(?:User|Human)[ \t*]*+:)
    |(?<=\n)\#{2,}[ ](?:Instruction|Input)\b
    |<\|(?:im_start|im_end|eot_id|start_header_id|end_of_text|endoftext|end|user)\|>|<(?:start|end)_of_turn>|</s>|\[INST\]
    """,
    re.VERBOSE | re.IGNORECASE,
)
# After a digit a point may begin decimals.
_CUT = re.compile(r"(?:(?<=\d)[.,])?[ \t]*\Z")
# Full-width forms, one character each, so that positions stay.
_FULL_WIDTH = {0xFEE0 + code: code for code in range(0x21, 0x7F)} | {0x3000: 0x20}


def extract_answer(response: str, options: Sequence[str], finished: bool = True) -> Extraction:
    """Return the answer that ``response`` states last, outside of thoughts; ``options`` is empty for an open question.

    A response that is not ``finished`` was cut by the length limit. Takes time linear in the response.
    """
    tags = list(_THOUGHT_TAG.finditer(response))
    if tags and not tags[-1][1]:
        return abstain(Abstention.UNFINISHED_THOUGHT)
    start = tags[-1].end() if tags else 0
    start += len(response[start:]) - len(response[start:].lstrip())
    text = response[start:].translate(_FULL_WIDTH)
    if run_on := _NEXT_QUESTION.search(text, 1):
        text = text[: run_on.start()]
    if not text:
        return abstain(Abstention.EMPTY)
    found = _last_statement(text, Options(options)) if options else _last_open_statement(text)
    if found is None or found.span is None:
        return found or abstain(Abstention.NO_STATEMENT)
    # An open answer ends with its line, so that it may hold its own retraction.
    said, rest = (None, found.span[0]) if found.index is None else (LETTERS[found.index], found.span[1])
    if is_retracted(text[rest:], said):
        return abstain(Abstention.RETRACTED)
    if not finished and not run_on and _CUT.match(text, found.span[1]):
        return abstain(Abstention.UNFINISHED_ANSWER)
    span = (start + found.span[0], start + found.span[1])
    answer = response[slice(*span)] if found.index is None else options[found.index]
    return Extraction(answer, found.index, found.rule, span)


def _last_statement(text: str, options: Options) -> Extraction | None:
    for anchor in find_anchors(text):
        if found := _read(text, anchor, options):
            return found
    return options.read_whole(text)


def _read(text: str, anchor: Anchor, options: Options) -> Extraction | None:
    if anchor.rule == "statement_is" and not options.are_verdicts:
        return None
    if anchor.rule == "is_correct":
        found = options.read_letter(text, anchor.value_at, anchor.rule)
    else:
        found = options.read(text, anchor.value_at, anchor.rule, anchor.is_prose)
    if found and anchor.one_of_several:
        return abstain(Abstention.AMBIGUOUS)
    return found or read_refusal(text, anchor.value_at)


def _last_open_statement(text: str) -> Extraction | None:
    for anchor in find_anchors(text):
        if anchor.rule in {"is_correct", "statement_is", "revision"}:
            continue
        if found := read_refusal(text, anchor.value_at) or read_open(
            text, anchor.value_at, anchor.rule, anchor.is_prose
        ):
            return abstain(Abstention.AMBIGUOUS) if anchor.one_of_several else found
    return None
