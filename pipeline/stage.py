"""What a stage is: its declaration, and what its code gets when it runs.

A room declares its stage in ``stage.py`` and names what it runs as ``module:function``, so that a declaration imports
nothing heavy and the code behind it can be told apart from the rest. ``pipeline.stages`` is the list of all.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Generic, Literal, TypeVar

from pydantic import ValidationError

from pipeline.errors import ArtifactError, CurationError
from pipeline.execution import Executor
from pipeline.model_config import ModelConfig
from pipeline.section import Section
from pipeline.store.artifact import Artifact, Tables
from pipeline.store.shards import Rows, ShardedTables
from pipeline.store.writer import ArtifactWriter

S = TypeVar("S", bound=Section)
T = TypeVar("T", bound=Section)


@dataclass(frozen=True)
class StageSpec:
    """One stage. A new one is a room with such a declaration, a line in ``STAGES`` and one in ``Config``.

    Its fingerprint is taken over the code that ``run`` can reach, its settings and those that it ``reads``, the content
    of its ``inputs`` and ``sources``, the model where it ``uses_model``, the schemas of its tables and the versions of
    the libraries that its code imports.
    """

    name: str
    """Stage, and the artifact that stands for it."""
    section: type[Section]
    """Class of its settings."""
    description: str
    """What it makes, for people."""
    group: Literal["curation", "training", "evaluation", "rounds"]
    """Where people look for it."""
    tables: Tables
    """Tables of its artifact; the first is the one that most readers want."""
    run: str
    """``module:function`` that takes a ``Task`` and writes the artifact."""
    inputs: tuple[str, ...] = ()
    """Artifacts that it reads."""
    companions: Mapping[str, "Companion"] = field(default_factory=dict)
    """Further artifacts that it makes in the same go, kept apart because other stages may read them."""
    after: tuple[str, ...] = ()
    """Artifacts that must be there before it runs, though it does not read them."""
    reads: Mapping[str, type[Section]] = field(default_factory=dict)
    """Settings of stages before it that it reads: a class holds exactly the fields."""
    uses_model: bool = False
    """Whether it depends on the language model."""
    settings: str = ""
    """Section of the configuration that its settings are in; by default the one of its name."""
    code: Callable[[Any], tuple[str, ...]] = lambda _settings: ()
    """Returns modules, besides that of ``run``, in which its code begins under its settings: programs it starts."""
    sources: str | None = None
    """``module:function`` that returns what it reads outside the store, from its settings and ``Task.settings``.

    Files, folders or data sets, as ``pipeline.pool.source`` has them: with a name, and a digest of the content.
    """
    gate: str | None = None
    """``module:function`` that judges the notes of what it runs ``after``, by name, and its settings before it runs."""
    plot: str | None = None
    """``module:function`` that draws its artifact as PNG, or returns none."""
    optional: bool = False
    """Whether it runs only where it is asked for by name."""

    @property
    def key(self) -> str:
        """Section of the configuration that its settings are in."""
        return self.settings or self.name

    @property
    def artifacts(self) -> Mapping[str, Tables]:
        """Tables of every artifact that it makes, its own first."""
        return {self.name: self.tables} | {name: companion.tables for name, companion in self.companions.items()}

    def modules(self, settings: Section) -> tuple[str, ...]:
        """Return the modules in which its code begins under its settings."""
        return (self.run.partition(":")[0], *self.code(settings))


@dataclass(frozen=True)
class Companion:
    """An artifact that a stage makes beside its own."""

    tables: Tables
    """Tables; the first is the one that most readers want."""
    description: str
    """What it holds, for people."""
    plot: str | None = None
    """As of a stage."""


@dataclass
class Task(Generic[S]):
    """A stage at work: what it may read, and where it writes. Nothing else reaches its code."""

    section: S
    """Its settings."""
    inputs: Mapping[str, Artifact]
    """Artifacts that it declared as inputs."""
    writers: Mapping[str, ArtifactWriter]
    """Writer of each of its artifacts, its own first."""
    own_settings: Mapping[str, Mapping[str, Any]]
    """All settings of each stage before it, for reports; what determines a result is read by ``settings``."""
    declared: Mapping[str, type[Section]]
    """See ``StageSpec.reads``."""
    provenance: Mapping[str, Any]
    """What the fingerprint is taken over."""
    fingerprint: str
    """Digest of everything that determines the result."""
    command: Callable[[], str]
    """Returns the command that makes the stage again under the settings of this run."""
    language_model: ModelConfig | None
    """The language model, where the stage declared to use it."""
    earlier: Callable[[str], Sequence[Artifact]]
    """Returns finished artifacts of this stage by their recipe."""
    describe_code: Callable[[Sequence[str]], Mapping[str, Any]]
    """Returns digest and libraries of the code that begins in some modules."""
    launch: Callable[[Sequence[str]], None]
    """Runs a command to its end; raises TrainingError when it fails."""
    executor: Executor
    """Where work on shards is done."""
    refusal: CurationError | None = None
    """Set to fail the stage after its writers have been closed."""

    @property
    def writer(self) -> ArtifactWriter:
        """Writer of the stage's own artifact."""
        return next(iter(self.writers.values()))

    @property
    def model(self) -> ModelConfig:
        """The language model; only for stages that declared to use it."""
        assert self.language_model is not None, "declare uses_model"
        return self.language_model

    def settings(self, stage: str, kind: type[T]) -> T:
        """Return settings of a stage before this one, as declared."""
        assert issubclass(self.declared[stage], kind), f"declare {kind.__name__} of '{stage}'"
        return read_settings(self.own_settings[stage], kind)

    def make_shards(
        self,
        tables: Sequence[str],
        keys: Mapping[str, str],
        recipe: Mapping[str, object],
        code: Sequence[str],
        compute: Callable[[Sequence[str], Callable[[float], object]], Rows],
    ) -> None:
        """Make some of the artifact's tables in shards, see ``ShardedTables.make``.

        ``code`` are the modules in which the code that makes a question's rows begins; with the model they are added to
        ``recipe``.
        """
        whole = {**recipe, "code": self.describe_code(code), "model": self.provenance["model"]}
        ShardedTables(self.writer, tables, self.earlier, self.executor).make(keys, whole, compute)


def read_settings(values: Mapping[str, Any], kind: type[T]) -> T:
    """Return those of a stage's settings that ``kind`` holds; raises ArtifactError for settings of other code."""
    try:
        return kind.model_validate({name: values[name] for name in kind.model_fields})
    except (KeyError, ValidationError) as error:
        raise ArtifactError(
            f"an artifact was made with settings that {kind.__name__} no longer has: materialize the whole run again"
        ) from error


def read_sources(spec: StageSpec, section: Section, before: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Return name and digest of all that a stage reads outside the store; ``before``: settings of stages before it."""

    def settings(stage: str, kind: type[T]) -> T:
        return read_settings(before[stage], kind)

    files = resolve(spec.sources)(section, settings) if spec.sources else ()
    return [[file.name, file.digest()] for file in files]


def resolve(reference: str) -> Callable[..., Any]:
    """Return the function that ``module:function`` names."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)
