"""What all sections of the configuration are, and the errors that a bad one gives."""

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import ConfigError

S = TypeVar("S", bound="Section")


class Section(BaseModel):
    """Base of all sections: immutable, no unknown keys, field docstrings are the help texts."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def parse_section(kind: type[S], values: Mapping[str, Any], where: str) -> S:
    """Validate ``values`` as ``kind``; a ConfigError names the place, the key and the nearest right key."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_describe(kind, problem) for problem in error.errors())
        raise ConfigError(f"{where}: {problems}") from error


def _describe(kind: type[Section], problem: Mapping[str, Any]) -> str:
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "missing":
        return f"missing key '{key}'"
    if problem["type"] != "extra_forbidden":
        return f"{key} = {problem['input']!r}: {problem['msg'].lower()}"
    fields = kind.model_fields
    for part in location[:-1]:
        annotation = fields[part].annotation
        fields = annotation.model_fields if isinstance(annotation, type) and issubclass(annotation, Section) else {}
    nearest = difflib.get_close_matches(location[-1], fields, n=1, cutoff=0.0)
    return f"unknown key '{key}'" + (f", did you mean '{nearest[0]}'?" if nearest else "")
