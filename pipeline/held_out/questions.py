"""Questions held out of training: the tests of the evaluation, and what the pool is decontaminated against.

Both are read by the pool's settings from another path, whose layout may be another one too.
"""

import re
from typing import Any

from pipeline.paths import resolve_path
from pipeline.pool.config import AnsweredLayout, RawPoolConfig
from pipeline.pool.files import ENDINGS, ending
from pipeline.pool.ingest import Ingestion

_DATA_SET = re.compile(r"(.+)#([^#/]+)")


def find_held_out(path: str, setting: str, pool: AnsweredLayout) -> Ingestion:
    """Return the questions of ``path``, to be read; raises SourceError without any source.

    Errors, then and when they are read, name the setting that holds the path.
    """
    return Ingestion(RawPoolConfig(**held_out_layout(path, pool).model_dump()), setting)


def held_out_layout(path: str, pool: AnsweredLayout) -> AnsweredLayout:
    """Return how held-out questions are read: in the pool's columns, in the layout that the path names.

    ``<data set>#<split>`` is a split of a data set (a folder, or on the hub); subset and revision are the pool's for
    the pool's own data set only. A folder, or files whose ending is known, are read as by the format ``auto``; all else
    is in the pool's format.
    """
    changes: dict[str, Any] = {"path": path}
    if (named := _DATA_SET.fullmatch(path)) and not resolve_path(path).exists():
        changes = {"path": named[1], "format": "huggingface", "split": named[2]}
    elif ending(path) in ENDINGS or (resolve_path(path).is_dir() and pool.format != "huggingface"):
        changes["format"] = "auto"
    if changes["path"] != pool.path:
        changes |= {"subset": None, "revision": None}
    return pool.model_copy(update=changes)
