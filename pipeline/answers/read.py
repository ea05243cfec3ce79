"""What rollouts state: the answer, where it stands, and the probabilities of the options there.

A rollout was shown the options in its own order; all that is stored counts them in the source's. Pinned by
``tests/answers/test_read.py``.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from pipeline.answers.extract import Extraction, extract_answer, opens_thought
from pipeline.answers.option_tokens import Forms, option_forms
from pipeline.answers.schemas import ANSWERS
from pipeline.answers.spans import token_span
from pipeline.errors import ArtifactError
from pipeline.generation.generator import STOP
from pipeline.prompts import LETTERS
from pipeline.rollouts.schemas import UNANSWERED

COLUMNS = (
    "id",
    "sample",
    "prompt_ids",
    "permutation",
    "response_ids",
    "response",
    "finish_reason",
    "watched_ids",
    "watched_logprobs",
)
"""Columns of ``rollouts`` that are read."""
_TAIL = 16
"""Last tokens of a prompt in which a chat template may open a thought; a tag and a line feed are at most so many."""


def read_answers(rollouts: pl.DataFrame, questions: pl.DataFrame, tokenizer: PreTrainedTokenizerBase) -> pl.DataFrame:
    """Return ANSWERS, one row per rollout, sorted by id and sample.

    Args:
        rollouts: The columns ``COLUMNS`` of schema ROLLOUTS.
        questions: Columns ``id``, ``question`` and ``options`` of schema RAW_POOL, of all that the rollouts answer.
        tokenizer: Tokenizer of the model that the rollouts are of.

    Raises ArtifactError for a rollout of a question that is not among ``questions``.
    """
    asked = {key: (text, options) for key, text, options in questions.select("id", "question", "options").iter_rows()}
    forms = option_forms(tokenizer)
    rows = []
    for rollout in rollouts.select(COLUMNS).sort("id", "sample").iter_rows(named=True):
        if rollout["id"] not in asked:
            raise ArtifactError(
                f"question '{rollout['id']}' of the rollouts is not among the questions: sample the rollouts again"
            )
        rows.append(_read(rollout, *asked[rollout["id"]], tokenizer, forms))
    return pl.DataFrame(pa.Table.from_pylist(rows, schema=ANSWERS))


def _read(
    rollout: Mapping[str, Any],
    question: str,
    options: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    forms: Callable[[tuple[str, ...]], Forms],
) -> dict[str, Any]:
    """Return the row of ANSWERS of one rollout."""
    order, response_ids = rollout["permutation"], rollout["response_ids"]
    shown = tuple(options[index] for index in order)
    extraction = _extract(rollout, question, shown, tokenizer)
    start = stop = probs = None
    if extraction.span:
        start, stop = token_span(tokenizer, response_ids, extraction.span)
        if extraction.index is not None:
            by_its_letter = rollout["response"][slice(*extraction.span)] == LETTERS[extraction.index]
            form = forms(shown).by_letter if by_its_letter else forms(shown).by_text
            probs = form.option_probs(response_ids[start], _watched_at(rollout, start), len(shown))
    return {
        "id": rollout["id"],
        "sample": rollout["sample"],
        "answer": extraction.answer,
        "answer_index": None if extraction.index is None else order[extraction.index],
        "extraction": extraction.rule,
        "option_probs": probs and [prob for _, prob in sorted(zip(order, probs, strict=True))],
        "answer_start": start,
        "answer_stop": stop,
    }


def _extract(
    rollout: Mapping[str, Any], question: str, shown: tuple[str, ...], tokenizer: PreTrainedTokenizerBase
) -> Extraction:
    finish_reason = rollout["finish_reason"]
    if finish_reason in UNANSWERED:
        return Extraction(answer=None, index=None, rule=finish_reason, span=None)
    in_thought = opens_thought(tokenizer.decode(rollout["prompt_ids"][-_TAIL:]))
    return extract_answer(rollout["response"], shown, finish_reason == STOP, question, in_thought)


def _watched_at(rollout: Mapping[str, Any], position: int) -> dict[int, float]:
    """Return the log-probabilities of the watched tokens at a position whose token is one of them."""
    watched_ids = rollout["watched_ids"]
    start = sum(token in watched_ids for token in rollout["response_ids"][:position]) * len(watched_ids)
    recorded = rollout["watched_logprobs"][start : start + len(watched_ids)]
    return dict(zip(watched_ids, recorded, strict=False))  # fewer where the last watched token stands before
