"""Presets: YAML files that state what differs from the defaults of the configuration tree.

``load_config`` is the one way in, for the command line, for Dagster and for benchmarks.
"""

from collections.abc import Iterable
from pathlib import Path

import yaml

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.section import apply_override, parse_section

PRESETS = Path(__file__).parent
DEFAULT_PRESET = "reference"


def load_config(preset: str = DEFAULT_PRESET, overrides: Iterable[str] = (), seed: int | None = None) -> Config:
    """Load a preset (a name, or the path of a YAML file) and apply ``section.key=value`` overrides.

    Values are read as YAML scalars or lists. Raises ConfigError for an unknown preset, an unknown key (naming the
    nearest right one) or a value out of range.
    """
    path = Path(preset) if preset.endswith((".yaml", ".yml")) else PRESETS / f"{preset}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
        raise ConfigError(f"preset '{preset}' not found at {path}: use one of {known}, or the path of a YAML file")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold a mapping of sections such as 'rollouts:', not a {type(tree).__name__}")
    where = str(path)
    for override in overrides:
        apply_override(tree, override)
        where += f" --set {override}"
    config = parse_section(Config, tree, where)
    return config if seed is None else config.with_seed(seed)
