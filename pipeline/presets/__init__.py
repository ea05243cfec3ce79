"""Presets: YAML files that state what differs from the defaults of the configuration tree.

``load_config`` is the one way in, for the command line, for Dagster and for benchmarks.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import yaml

from pipeline.adapters.batches import check_batches
from pipeline.adapters.config import DistillationConfig, TrainingConfig
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.section import apply_override, parse_section, read_yaml

PRESETS = Path(__file__).parent
DEFAULT_PRESET = "reference"
BELIEF_RULES: Final = frozenset({"belief_shift", "confident_shift", "new_answer", "steady_shift"})
"""Selection rules that need ``context_beliefs``."""


def load_config(preset: str = DEFAULT_PRESET, overrides: Iterable[str] = (), seed: int | None = None) -> Config:
    """Load a preset (a name, or the path of a YAML file) and apply ``section.key=value`` overrides.

    Values are read as YAML scalars or lists. What ``context_beliefs`` leaves open it takes from ``teacher_contexts``:
    questions are chosen by the contexts that they are trained with. What ``ceiling_adapter`` leaves open it takes from
    ``distilled_adapter``, so that the two differ in what the teacher is told; ``rival_adapter`` does so for sampling,
    teacher and loss.

    Raises ConfigError for an unknown preset, an unknown key (naming the nearest right one), a value out of range, a
    rule whose signals are not sampled, or a step that does not come out even.
    """
    path = Path(preset) if preset.endswith((".yaml", ".yml")) else PRESETS / f"{preset}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
        raise ConfigError(f"preset '{preset}' not found at {path}: use one of {known}, or the path of a YAML file")
    try:
        tree = read_yaml(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold a mapping of sections such as 'rollouts:', not a {type(tree).__name__}")
    where = str(path)
    for override in overrides:
        apply_override(tree, override)
        where += f" --set {override}"
    _fill_beliefs(tree)
    config = _fill_adapters(parse_section(Config, tree, where))
    if config.curated_subset.rule in BELIEF_RULES and not config.context_beliefs.n_samples:
        raise ConfigError(
            f"{where}: curated_subset.rule = '{config.curated_subset.rule}' reads what the model answers with the "
            "teacher's context: set context_beliefs.n_samples, for instance to 4"
        )
    for name in ("distilled_adapter", "rival_adapter", "ceiling_adapter"):
        if getattr(section := getattr(config, name), "enabled", True):
            check_batches(f"{where}: {name}", section)  # hours before training would find it
    return config if seed is None else config.with_seed(seed)


def _fill_adapters(config: Config) -> Config:
    """Let ceiling and rival be trained as distillation is, but for what they say themselves.

    The ceiling takes all its settings from there, the rival those of sampling, teacher and loss.
    """
    of_ceiling, shared = DistillationConfig.model_fields.keys() - {"objective"}, TrainingConfig.model_fields.keys()
    wanted = {"ceiling_adapter": of_ceiling, "rival_adapter": of_ceiling - shared}
    filled = {}
    for name, fields in wanted.items():
        section = getattr(config, name)
        taken = {field: getattr(config.distilled_adapter, field) for field in fields - section.model_fields_set}
        filled[name] = section.model_copy(update=taken)
    return config.model_copy(update=filled)


def _fill_beliefs(tree: dict[str, Any]) -> None:
    contexts, beliefs = (tree.get(name) or {} for name in ("teacher_contexts", "context_beliefs"))
    if isinstance(contexts, dict) and isinstance(beliefs, dict):  # others are refused with the rest of the tree
        tree["context_beliefs"] = contexts | beliefs
