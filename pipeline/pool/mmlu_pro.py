"""MMLU-Pro in its published Parquet layout (huggingface.co/datasets/TIGER-Lab/MMLU-Pro; up to 10 options).

The domain stands in ``category``; ``src``, the benchmark that a question was taken from, becomes the task. The answer
is read from ``answer_index``: a letter could be the text of another option too.
"""

from collections.abc import Iterator

import pyarrow.parquet as pq

from pipeline.pool.config import RawPoolConfig
from pipeline.pool.parquet import read_parquet
from pipeline.pool.source import Problem, Source, SourceRow, configured

_COLUMNS = {
    "question": "question",
    "options": "options",
    "answer": "answer_index",
    "domain": "category",
    "task": "src",
}
_PUBLISHED = RawPoolConfig(level_column=None, **{f"{field}_column": column for field, column in _COLUMNS.items()})


def is_mmlu_pro(source: Source, _config: RawPoolConfig) -> bool:
    """Return whether a Parquet file has this layout's columns."""
    try:
        with source.open() as file:
            names = pq.read_schema(file).names
    except Exception:  # noqa: BLE001  # a damaged file, which the reader explains
        return False
    return {"question", "options", "answer_index", "cot_content"} <= set(names)


def read_mmlu_pro(source: Source, config: RawPoolConfig) -> Iterator[SourceRow]:
    """Yield the questions of an MMLU-Pro file under the configured column names."""
    for row in read_parquet(source, _PUBLISHED):
        if isinstance(row.parsed, Problem):
            yield row
        else:
            values = {field: row.parsed[column] for field, column in _COLUMNS.items()}
            yield row._replace(parsed=configured(values, config))
