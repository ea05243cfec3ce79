"""Choosing an implementation by the name that stands in the configuration."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

from pipeline.errors import ConfigError

T = TypeVar("T")


def look_up(choices: Mapping[str, T], name: str, key: str) -> T:
    """Return ``choices[name]``; raises ConfigError naming the nearest known name and the configuration key."""
    if name in choices:
        return choices[name]
    nearest = difflib.get_close_matches(name, choices, n=1, cutoff=0.0)[0]
    raise ConfigError(f"{key} = '{name}' is not known, did you mean '{nearest}'? Use one of {', '.join(choices)}")
