"""Data sets of the Hugging Face hub, streamed, or folders on disk that the ``datasets`` library reads.

Code that a data set brings along is never run: ``datasets`` 4 and later have no means to.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, DatasetDict, IterableDataset, load_dataset, load_from_disk
from datasets.exceptions import DatasetsError
from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # the base of network errors, of httpx

from pipeline.errors import SourceError, one_line
from pipeline.paths import resolve_path
from pipeline.pool.config import RawPoolConfig
from pipeline.pool.parquet import BATCH_ROWS, batch_rows
from pipeline.pool.source import Source, SourceRow, damaged, find_columns

_FAILURES = (OSError, HTTPError, DatasetsError, pa.ArrowException, ValueError, TypeError, LookupError, AttributeError)
"""What the library raises: the last four for metadata that it did not expect, of a damaged folder for instance."""


def find_dataset(config: RawPoolConfig, hub_id: str) -> Source:
    """Return the local folder, or the data set on the hub with the commit that its revision stands for now.

    Raises SourceError when there is no such folder and the hub does not know it or cannot be reached.
    """
    folder = resolve_path(config.path)
    if folder.is_dir():
        return Source(folder.name, folder)
    try:
        commit = HfApi().dataset_info(hub_id, revision=config.revision).sha
    except (OSError, ValueError, HTTPError) as error:
        raise _unusable(hub_id, error) from error
    return Source(hub_id, hub_id, revision=str(commit))


def read_huggingface(source: Source, config: RawPoolConfig) -> Iterator[SourceRow]:
    """Yield the rows of one split, numbered from 1; raises SourceError when the split cannot be opened."""
    try:
        dataset = _open(source, config)
        names = dataset.column_names or list(next(iter(dataset), {}))
    except _FAILURES as error:
        raise _unusable(str(source.path), error) from error
    batches = dataset.select_columns(find_columns(names, config, source.name)).with_format("arrow")
    number = 0
    try:
        for batch in batches.iter(BATCH_ROWS):
            batch.validate(full=True)  # Arrow trusts the offsets in a file, and reads where they point
            yield from batch_rows(batch, source, number)
            number += batch.num_rows
    except _FAILURES as error:
        yield damaged(source, number + 1, error)


def _open(source: Source, config: RawPoolConfig) -> Dataset | IterableDataset:
    if any(Path(source.path, name).is_file() for name in ("state.json", "dataset_dict.json")):  # made by save_to_disk
        stored = load_from_disk(str(source.path))
        return stored[config.split] if isinstance(stored, DatasetDict) else stored
    settings: dict[str, Any] = {"name": config.subset, "split": config.split, "revision": source.revision}
    return load_dataset(str(source.path), streaming=True, **settings)


def _unusable(name: str, error: BaseException) -> SourceError:
    return SourceError(
        f"data set '{name}' cannot be opened ({one_line(error)}): give a folder or hub id, with raw_pool.subset, "
        "raw_pool.split (of held-out questions: <data set>#<split>) and raw_pool.revision as the data set has them; "
        "the hub needs a network"
    )
