"""What a study is, as its YAML file says it."""

import re
import shlex
from pathlib import Path
from typing import Literal, NamedTuple, Self

import yaml
from pydantic import Field, model_validator

from pipeline.errors import ConfigError
from pipeline.paths import PROJECT_ROOT
from pipeline.section import Section, parse_section, read_yaml

_NAME = re.compile(r"[A-Za-z0-9][\w .,+()-]*")


class World(Section):
    """What all arms are tried on: questions, tests and a model."""

    name: str
    """Name in tables."""
    reference_seed: int | None = None
    """Seed of a reference world, made when it is first needed; none: the preset's own data and model."""
    set: list[str] = []
    """What differs from the preset, as ``section.key=value``."""


class Arm(Section):
    """A way to make a model."""

    name: str
    """Name in tables."""
    of: Literal["base", "rival", "distilled", "ceiling"] = "distilled"
    """The contender whose answers count; the others are not made."""
    set: list[str] = []
    """What differs from the preset, as ``section.key=value``."""


class StudyConfig(Section):
    """Arms x worlds x seeds, and what is asked of them."""

    name: str
    """Name of the study, and of the folders of its runs and results."""
    title: str = ""
    """What it is to find out, for people."""
    preset: str = "reference"
    """Preset that all arms begin with."""
    set: list[str] = []
    """What differs from it in all arms."""
    worlds: list[World] = Field(default=[World(name="0")], min_length=1)
    """What the arms are tried on."""
    seeds: list[int] = Field(default=[0], min_length=1)
    """Seeds of runs: of sampling, selection, contexts and training."""
    arms: list[Arm] = Field(min_length=1)
    """What is compared."""
    against: list[str] = Field(min_length=1)
    """Arms with which every other one is compared; the first is the one whose other abilities are to be kept."""
    margin: float = Field(default=0.03, gt=0)
    """Difference of accuracy out of domain within which it counts as kept."""
    n_resamples: int = Field(default=2_000, ge=100)
    """Bootstrap resamples of seeds and questions."""
    confidence_level: float = Field(default=0.95, gt=0, lt=1)
    """Mass of the intervals."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for kind, names in (("arms", [arm.name for arm in self.arms]), ("worlds", [w.name for w in self.worlds])):
            for name in names:
                if not _NAME.fullmatch(name) or names.count(name) > 1:
                    raise ValueError(f"{kind}: '{name}' stands twice, or is no name")
        if unknown := [name for name in self.against if name not in {arm.name for arm in self.arms}]:
            raise ValueError(f"against: there is no arm '{unknown[0]}'")
        return self


class Cell(NamedTuple):
    """An arm on a world under a seed."""

    arm: str
    world: str
    seed: int


def cells(study: StudyConfig) -> list[Cell]:
    """Return all cells, such that what one leaves for others comes early."""
    return [Cell(arm.name, world.name, seed) for arm in study.arms for seed in study.seeds for world in study.worlds]


def arm_of(study: StudyConfig, cell: Cell) -> Arm:
    """Return the arm of a cell."""
    return next(arm for arm in study.arms if arm.name == cell.arm)


def world_of(study: StudyConfig, cell: Cell) -> World:
    """Return the world of a cell."""
    return next(world for world in study.worlds if world.name == cell.world)


def run_name(study: StudyConfig, cell: Cell) -> str:
    """Return the name of the run that a cell is."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", "-".join(map(str, (study.name, *cell))))


def read_study(path: Path) -> StudyConfig:
    """Read a study; raises ConfigError naming the file, the key and the fix."""
    try:
        tree = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"study {path} cannot be read ({error.strerror}): give an existing YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"study {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"study {path} must hold a mapping with the keys name, arms and against")
    return parse_section(StudyConfig, tree, where=f"study {path}")


def results_of(study: StudyConfig) -> Path:
    """Return the folder of a study's results."""
    return PROJECT_ROOT / "docs" / "studies" / study.name


def command_of(path: Path) -> str:
    """Return the command that makes a study again."""
    return shlex.join(["python", "-m", "pipeline.study", str(path)])
