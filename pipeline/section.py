"""What all sections of the configuration are, and the errors that a bad one gives."""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from pipeline.errors import ConfigError
from pipeline.registry import suggest

S = TypeVar("S", bound="Section")


_BOOL = "tag:yaml.org,2002:bool"


class _Loader(yaml.SafeLoader):
    """Reads booleans as YAML 1.2 does: on, off, yes and no, settings' values among them, are words."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOL]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def read_yaml(text: str) -> Any:
    """Return what a YAML text of settings holds; raises yaml.YAMLError."""
    return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader


class Section(BaseModel):
    """Base of all sections: immutable, no unknown keys, field docstrings are the help texts."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    immaterial: ClassVar[frozenset[str]] = frozenset()
    """Settings that bound memory or judge a result but never change it: they make no stage run again."""

    def material(self) -> dict[str, Any]:
        """Return the settings that determine a result."""
        return self.model_dump(mode="json", exclude=set(self.immaterial))


def parse_section(kind: type[S], values: Mapping[str, Any], where: str) -> S:
    """Validate ``values`` as ``kind``; a ConfigError names the place, the key and the nearest right key."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_describe(kind, problem) for problem in error.errors())
        raise ConfigError(f"{where}: {problems}") from error


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one value of a tree of sections from ``section.key=value``; raises ConfigError for another form."""
    key, separator, value = override.partition("=")
    section, dot, field = key.strip().partition(".")
    if not separator or not dot:
        raise ConfigError(f"override '{override}' is not of the form section.key=value, such as rollouts.n_samples=8")
    try:
        parsed = read_yaml(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"override '{override}': the value is not valid YAML") from error
    target = tree.setdefault(section, {})
    if not isinstance(target, dict):
        raise ConfigError(f"override '{override}': section '{section}' of the preset is not a mapping")
    target[field] = parsed


def _describe(kind: type[Section], problem: Mapping[str, Any]) -> str:
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "missing":
        return f"missing key '{key}'"
    if problem["type"] == "literal_error":
        expected = problem["ctx"]["expected"]
        meant = suggest(str(problem["input"]), re.findall("'(.*?)'", expected))
        return f"{key} = {problem['input']!r} is not known{meant} Use {expected}"
    if problem["type"] == "value_error" and isinstance(problem["input"], Mapping):  # settings that do not go together
        return ": ".join([*location, problem["msg"].removeprefix("Value error, ")])
    if problem["type"] != "extra_forbidden":
        return f"{key} = {problem['input']!r}: {problem['msg'].lower()}"
    fields = kind.model_fields
    elsewhere = [name for name, field in fields.items() if location[-1] in _fields_of(field)]
    if len(location) == 2 and elsewhere:
        return f"unknown key '{key}', did you mean '{elsewhere[0]}.{location[-1]}'?"
    for part in location[:-1]:
        fields = _fields_of(fields[part])
    return f"unknown key '{key}'{suggest(location[-1], fields)}"


def _fields_of(field: FieldInfo) -> dict[str, FieldInfo]:
    annotation = field.annotation
    return annotation.model_fields if isinstance(annotation, type) and issubclass(annotation, Section) else {}
