"""Running stages against a store: one by one, or the whole chain in plain calls.

The Dagster assets call the same ``materialize``; what has been made with the same fingerprint is not made again.
"""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from pipeline.adapters.process import run_process
from pipeline.checks.check import Verdict
from pipeline.checks.config import ChecksConfig
from pipeline.checks.judge import judge, require_sound
from pipeline.config import Config
from pipeline.digests import digest_json
from pipeline.errors import ArtifactError
from pipeline.execution import Executor, InProcess
from pipeline.fingerprint import reachable_code
from pipeline.ledger.attempt import Recording
from pipeline.ledger.table import write_ledger
from pipeline.ledger.usage import Cost
from pipeline.model_config import ModelConfig
from pipeline.model_fingerprint import model_fingerprint
from pipeline.presets import load_config
from pipeline.section import Section
from pipeline.stage import StageSpec, Task, read_settings, read_sources, resolve
from pipeline.stages import CATALOGUE, STAGES, stage_of
from pipeline.store.artifact import Artifact
from pipeline.store.store import Run
from pipeline.store.writer import ArtifactWriter


@dataclass(frozen=True)
class Outcome:
    """What a stage left in the store."""

    artifacts: Mapping[str, Artifact]
    """Its artifacts, its own first."""
    cached: bool
    """Whether an earlier result still stood and nothing was computed."""
    cost: Cost = field(default_factory=Cost)
    """What was spent now; ``ledger.table.cost_to_make`` tells what it cost with all attempts."""
    verdicts: tuple[Verdict, ...] = ()
    """What its checks say."""

    @property
    def artifact(self) -> Artifact:
        """The stage's own artifact."""
        return next(iter(self.artifacts.values()))


@dataclass(frozen=True)
class Means:
    """What the surroundings provide to stages."""

    launch: Callable[[Sequence[str]], None] = run_process
    """Runs a command to its end."""
    executor: Executor = field(default_factory=InProcess)
    """Where work on shards is done."""
    limits: ChecksConfig = field(default_factory=ChecksConfig)
    """Limits by which results are judged."""


class Materialization:
    """A stage about to run: what it would read, and the fingerprint of what it would make."""

    def __init__(self, spec: StageSpec, section: Section, model: ModelConfig, run: Run) -> None:
        """Look up the inputs; raises ArtifactError when they are missing or do not belong together."""
        self.spec, self.section, self.run = spec, section, run
        for name in spec.artifacts:
            run.check_link(name)
        self.run_model = model
        self.model = model if spec.uses_model else None
        self.inputs = {name: run.require(name) for name in spec.inputs}
        for name in (*spec.after, *spec.reads):
            run.require(name)
        before = _before(spec, run)
        self.own_settings = {stage_of(name).name: artifact.manifest.settings for name, artifact in before.items()}
        self.provenance = self._provenance()
        self.fingerprint = digest_json(self.provenance)[:32]
        _check_consistent(before, self.provenance["model"], run)

    def standing(self) -> dict[str, Artifact] | None:
        """Return the artifacts of the fingerprint, shown by the run from now on, or none unless all of them stand."""
        store, names = self.run.store, self.spec.artifacts
        if not all(store.find(name, self.fingerprint) for name in names):
            return None
        return {name: self.run.show(name, self.fingerprint) for name in names}

    def compute(self, means: Means) -> Cost:
        """Run the stage's code, store what it makes and return what that cost, which is recorded, too.

        Raises ArtifactError naming an input that is damaged.
        """
        self._check_inputs(thorough=False)
        try:
            with Recording(
                self.run.store.ledger, self.spec.name, self.fingerprint, self._objective(), self.run.name
            ) as record:
                self._compute(means)
        except (pl.exceptions.PolarsError, OSError):
            self._check_inputs(thorough=True)
            raise
        return record.attempt

    def _objective(self) -> str | None:
        """Return what the one adapter that the stage makes, or has among its inputs, is trained for."""
        settings = [self.section.model_dump(), *(artifact.manifest.settings for artifact in self.inputs.values())]
        found = [own["objective"] for own in settings if "objective" in own]
        return found[0] if len(found) == 1 else None

    def _check_inputs(self, thorough: bool) -> None:
        for name, artifact in self.inputs.items():
            if not artifact.is_intact(thorough):
                raise ArtifactError(f"'{name}' of run '{self.run.name}' is damaged: materialize '{name}' again")

    def _compute(self, means: Means) -> None:
        store, settings = self.run.store, self.section.model_dump(mode="json")
        with ExitStack() as stack:
            writers = {
                name: stack.enter_context(store.write(name, self.fingerprint, settings, self.provenance))
                for name in self.spec.artifacts
            }
            task = self._task(writers, means)
            resolve(self.spec.run)(task)
            if not reachable_code(self.spec.modules(self.section)).is_current():
                # Modules are loaded when a stage first needs them: it cannot be told which code has run.
                task.refusal = ArtifactError(f"the code of '{self.spec.name}' changed while it ran: run it again")
                for writer in writers.values():
                    writer.discarded = True
        if task.refusal is None:
            return
        for name in self.spec.artifacts:
            if store.find(name, self.fingerprint):
                self.run.show(name, self.fingerprint)
            else:
                self.run.hide(name)
        raise task.refusal

    def _task(self, writers: Mapping[str, ArtifactWriter], means: Means) -> Task[Any]:
        store, name = self.run.store, self.spec.name
        return Task(
            section=self.section,
            inputs=self.inputs,
            writers=writers,
            own_settings=self.own_settings,
            declared=self.spec.reads,
            provenance=self.provenance,
            fingerprint=self.fingerprint,
            command=self._command,
            language_model=self.model,
            earlier=lambda recipe: store.of_recipe(name, recipe),
            describe_code=_describe_code,
            launch=means.launch,
            executor=means.executor,
        )

    def _command(self) -> str:
        """Return the command for the default preset and every setting that differs from it."""
        used = {stage_of(name).key: settings for name, settings in self.own_settings.items()}
        used |= {"model": self.run_model.model_dump(mode="json"), self.spec.key: self.section.model_dump(mode="json")}
        changes: list[str] = []
        for _ in range(2):  # sections that take from others what is left open may need to be set back
            given = load_config(overrides=changes).model_dump(mode="json")
            changes += [
                f"{section}.{key}={json.dumps(value)}"
                for section, settings in sorted(used.items())
                for key, value in settings.items()
                if key in given[section] and value != given[section][key]
            ]
        return shlex.join(["python", "-m", "assets", *(word for change in changes for word in ("--set", change))])

    def _provenance(self) -> dict[str, Any]:
        spec = self.spec
        return {
            "stage": spec.name,
            **_determining(spec, self.section, self.own_settings),
            "inputs": {name: artifact.manifest.digest for name, artifact in self.inputs.items()},
            "sources": read_sources(spec, self.section, self.own_settings),
            "model": model_fingerprint(self.model) if self.model else None,
            "tables": {
                table: schema.to_string(show_field_metadata=True, truncate_metadata=False)
                for tables in spec.artifacts.values()
                for table, schema in tables.items()
            },
            **_describe_code(spec.modules(self.section)),
        }


def materialize(spec: StageSpec, section: Section, model: ModelConfig, run: Run, means: Means | None = None) -> Outcome:
    """Return a stage's standing artifacts, or make them; the run shows them from then on.

    Raises CheckError where they do not pass a blocking check.
    """
    outcome = make_and_judge(spec, section, model, run, means or Means())
    require_sound(spec.name, outcome.verdicts)
    return outcome


def make_and_judge(spec: StageSpec, section: Section, model: ModelConfig, run: Run, means: Means) -> Outcome:
    """Return what ``materialize`` does, with verdicts that may be bad."""
    materialization = Materialization(spec, section, model, run)
    if spec.gate:
        resolve(spec.gate)({name: run.require(name).manifest.notes for name in spec.after}, section)
    before, cost = run.find(spec.name), Cost()
    standing = materialization.standing()
    cached = standing is not None
    try:
        if standing is None:
            cost = materialization.compute(means)
            standing = materialization.standing()
    finally:
        if not cached or before is None or before.manifest.fingerprint != materialization.fingerprint:
            write_ledger(run)
    if standing is None:
        raise ArtifactError(f"'{spec.name}' of run '{run.name}' was removed while it was made: materialize it again")
    return Outcome(standing, cached, cost, judge(spec.name, section, means.limits, run))


def run_chain(config: Config, run: Run, last: str = "evaluation", means: Means | None = None) -> dict[str, Outcome]:
    """Run the stages in order up to ``last``, optional ones left out, and return the outcome of each."""
    chosen, means = STAGES[: STAGES.index(stage_of(last)) + 1], replace(means or Means(), limits=config.checks)
    return {
        spec.name: materialize(spec, getattr(config, spec.key), config.model, run, means)
        for spec in chosen
        if not spec.optional
    }


def determining_settings(spec: StageSpec, config: Config) -> dict[str, Any]:
    """Return the settings that a stage's fingerprint is taken over: its own, and those that it reads."""
    before = {stage: getattr(config, stage_of(stage).key).model_dump(mode="json") for stage in spec.reads}
    return _determining(spec, getattr(config, spec.key), before)


def _determining(spec: StageSpec, section: Section, before: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    reads = {stage: read_settings(before[stage], kind).material() for stage, kind in spec.reads.items()}
    return {"settings": section.material(), "reads": reads}


def _before(spec: StageSpec, run: Run) -> dict[str, Artifact]:
    """Return the artifacts that a stage builds on, directly or not, in order and as far as the run shows them."""
    found: dict[str, Artifact] = {}
    waiting = [*spec.inputs, *spec.after, *spec.reads]
    while waiting:
        name = waiting.pop()
        if name not in found and (artifact := run.find(name)):
            found[name] = artifact
            before = stage_of(name)
            waiting += [before.name, *before.inputs, *before.after]
    return {name: found[name] for name in CATALOGUE if name in found}


def _check_consistent(before: Mapping[str, Artifact], model: str | None, run: Run) -> None:
    """Raise ArtifactError unless artifacts were made from one another, from the same things and with this model."""
    made_from = {name: (name, artifact.manifest.digest) for name, artifact in before.items()}
    for name, artifact in before.items():
        provenance = artifact.manifest.provenance
        for source, digest in provenance["inputs"].items():
            witness, expected = made_from.setdefault(source, (name, digest))
            if digest != expected:
                other = "the run's" if witness == source else f"'{witness}' was"
                raise ArtifactError(
                    f"'{name}' of run '{run.name}' was made from another '{source}' than {other}: materialize '{name}' "
                    "again"
                )
        if None not in (model, provenance["model"]) and provenance["model"] != model:
            raise ArtifactError(
                f"'{name}' of run '{run.name}' was made with other weights or in another dtype than model.path has "
                f"now: materialize '{name}' again"
            )


def _describe_code(modules: Sequence[str]) -> dict[str, Any]:
    code = reachable_code(tuple(modules))
    return {"code": code.digest, "libraries": dict(code.libraries)}
