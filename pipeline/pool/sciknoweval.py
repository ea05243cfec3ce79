"""SciKnowEval in its published JSON Lines layout (huggingface.co/datasets/hicai-zju/SciKnowEval).

Options stand in ``choices.text`` and the answer in ``answerKey``; questions of truth have neither but an ``answer`` of
Yes or No; the other types are open and have their ``answer`` as text. What a question looks like goes by ``type``,
never by its answer. Level and task stand in ``details``.
"""

from collections.abc import Iterator
from typing import Any

from pipeline.pool.config import RawPoolConfig
from pipeline.pool.jsonl import read_jsonl
from pipeline.pool.source import Problem, Reason, Source, SourceRow, configured

TRUTH_OPTIONS = ["Yes", "No"]
CHOICE_TYPES = ("mcq-4-choices", "mcq-2-choices")
OPEN_TYPES = ("filling", "open-ended-qa", "relation_extraction")
TYPES = ("true_or_false", *CHOICE_TYPES, *OPEN_TYPES)
"""What the field ``type`` may hold."""


def read_sciknoweval(source: Source, config: RawPoolConfig) -> Iterator[SourceRow]:
    """Yield the questions of a SciKnowEval file under the configured column names."""
    for row in read_jsonl(source, config):
        yield row if isinstance(row.parsed, Problem) else row._replace(parsed=_parse(row.parsed, config))


def is_sciknoweval(source: Source, config: RawPoolConfig) -> bool:
    """Return whether the first object of a JSON Lines file is of this layout; answers do not matter."""
    rows = (row.parsed for row in read_jsonl(source, config))
    first = next((row for row in rows if not isinstance(row, Problem)), {})
    return first.get("type") in TYPES and "choices" in first and config.options_column not in first


def _parse(row: dict[str, Any], config: RawPoolConfig) -> dict[str, Any] | Problem:
    options = _options(row)
    if isinstance(options, Problem):
        return options
    details = row.get("details")
    described = details if isinstance(details, dict) else {}
    values = {
        "question": row.get("question"),
        "options": options,
        "answer": _answer(row),
        "domain": row.get("domain"),
        "level": described.get("level"),
        "task": described.get("task"),
    }
    return configured(values, config)


def _options(row: dict[str, Any]) -> object:
    kind, choices = row.get("type"), row.get("choices")
    if kind == "true_or_false":
        return TRUTH_OPTIONS
    if kind not in TYPES:
        found = "no 'type'" if kind is None else f"the type {str(kind)[:40]!r}"
        return Problem(Reason.UNKNOWN_TYPE, f"the row has {found}; SciKnowEval has {', '.join(TYPES)}")
    texts = choices.get("text") if isinstance(choices, dict) else choices
    if kind in CHOICE_TYPES and not texts:
        return Problem(Reason.BAD_OPTIONS, f"a question of type {kind!r} has no choices")
    return texts


def _answer(row: dict[str, Any]) -> object:
    key, choices = row.get("answerKey"), row.get("choices")
    if key in ("", None):
        return row.get("answer")
    labels = choices.get("label") if isinstance(choices, dict) else None
    return labels.index(key) if isinstance(labels, list) and key in labels else key
