"""SciKnowEval in its published JSON Lines layout (huggingface.co/datasets/hicai-zju/SciKnowEval).

Options stand in ``choices.text`` and the answer in ``answerKey``; questions of truth have neither but an ``answer`` of
Yes or No; the other types are open and have their ``answer`` as text. What a question looks like goes by ``type``,
never by its answer.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.config import RawPoolConfig
from pipeline.pool.jsonl import read_jsonl
from pipeline.pool.source import Problem, Reason, SourceRow

TRUTH_OPTIONS = ["Yes", "No"]


def read_sciknoweval(path: Path, config: RawPoolConfig) -> Iterator[SourceRow]:
    """Yield the questions of a SciKnowEval file under the configured column names."""
    columns = (config.question_column, config.options_column, config.answer_column, config.domain_column)
    for row in read_jsonl(path, config):
        if row.values is None:
            yield row
        elif isinstance(options := _options(row.values), Problem):
            yield SourceRow.of(row.source, row.raw, options)
        else:
            cells = (row.values.get("question"), options, _answer(row.values), row.values.get("domain"))
            parsed = {name: cell for name, cell in zip(columns, cells, strict=True) if name is not None}
            yield SourceRow.of(row.source, row.raw, parsed)


def _options(row: dict[str, Any]) -> object:
    kind, choices = str(row.get("type")), row.get("choices")
    if kind == "true_or_false":
        return TRUTH_OPTIONS
    texts = choices.get("text") if isinstance(choices, dict) else choices
    if kind.startswith("mcq") and not texts:
        return Problem(Reason.BAD_OPTIONS, f"a question of type {kind[:40]!r} has no choices")
    return texts


def _answer(row: dict[str, Any]) -> object:
    key, choices = row.get("answerKey"), row.get("choices")
    if key in ("", None):
        return row.get("answer")
    labels = choices.get("label") if isinstance(choices, dict) else None
    return labels.index(key) if isinstance(labels, list) and key in labels else key
