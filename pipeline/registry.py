"""Choosing by a name that a user wrote: what it stands for, or what was probably meant."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from pipeline.errors import ConfigError

T = TypeVar("T")


def look_up(choices: Mapping[str, T], name: str, key: str) -> T:
    """Return ``choices[name]``; raises ConfigError naming the nearest known name and the configuration key."""
    if name in choices:
        return choices[name]
    raise ConfigError(f"{key} = '{name}' is not known{suggest(name, choices)} Use one of {', '.join(choices)}")


def suggest(name: str, choices: Iterable[str]) -> str:
    """Return the question, for the middle of a sentence, whether the nearest choice was meant; empty without any."""
    nearest = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.0)
    return f", did you mean {nearest[0]!r}?" if nearest else ""
