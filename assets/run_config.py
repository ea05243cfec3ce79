"""Launchpad forms: each asset's configuration is the section of the same name, with the preset's values as defaults."""

from copy import copy
from typing import Any, TypeVar, get_origin

import dagster as dg
from pydantic import create_model

from pipeline.section import Section, parse_section

S = TypeVar("S", bound=Section)


def run_config(section: Section, base: type[dg.Config] = dg.Config) -> Any:
    """Return the Dagster config (or resource) class whose fields, help and defaults are those of ``section``."""
    fields = {}
    for name, field in type(section).model_fields.items():
        preset = copy(field)
        preset.default = getattr(section, name)
        # Dagster 1.13 knows no unions; what a free mapping may hold is checked when the section is read.
        is_mapping = get_origin(field.annotation) is dict
        fields[name] = (dict[str, Any] if is_mapping else field.annotation, preset)
    # mypy: create_model wants literal keyword types; the fields are a section's own.
    return create_model(f"{type(section).__name__}Form", __base__=base, **fields)  # type: ignore[call-overload]


def read_section(kind: type[S], form: dg.Config) -> S:
    """Return the section that a filled form holds; raises ConfigError naming the key of a bad value."""
    values = {name: getattr(form, name) for name in kind.model_fields}
    return parse_section(kind, values, where=f"run config of {kind.__name__}")
