"""The asset graph, from the list of stages: one asset per stage, or several where it makes several artifacts."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import dagster as dg

from assets.checks import check_results, check_specs
from assets.keys import asset_key
from assets.lineage import column_lineage, column_schema
from assets.publish import publish
from assets.run_config import read_section, run_config
from assets.sources import sources_of, versions_of
from pipeline.adapters.process import CrashError, run_process
from pipeline.chain import Means, Outcome, make_and_judge
from pipeline.checks.config import ChecksConfig
from pipeline.checks.judge import judge, require_sound
from pipeline.config import Config
from pipeline.errors import CurationError, QuarantineError
from pipeline.fingerprint import reachable_code
from pipeline.model_config import ModelConfig
from pipeline.paths import PROJECT_ROOT
from pipeline.section import Section
from pipeline.stage import StageSpec
from pipeline.store.artifact import Artifact, Tables
from pipeline.store.store import Run, Store

POOL: Final = "model"
"""Stages that load the model run one at a time when the instance limits this pool, as a single GPU needs."""
_QUARANTINE: Final = "quarantine"
"""The one companion that is worth showing when its stage fails."""


class StoreResource(dg.ConfigurableResource):  # type: ignore[type-arg]  # Dagster's own generic is for other uses
    """Folder of all artifacts and runs."""

    root: str
    """Folder that holds ``store`` and ``runs``, relative to the project."""

    def open(self, run: str, catalogue: Mapping[str, Tables]) -> Run:
        """Return a run of the store."""
        return Store(PROJECT_ROOT / self.root, catalogue).run(run)


def build_assets(specs: Sequence[StageSpec], config: Config, run: str) -> list[dg.AssetsDefinition]:
    """Return the assets of a run, their launchpad defaults taken from ``config``."""
    catalogue = {name: tables for spec in specs for name, tables in spec.artifacts.items()}
    return [_StageAsset(spec, run, catalogue).define(getattr(config, spec.key)) for spec in specs]


class _StageAsset:
    """A stage of a run as Dagster sees it."""

    def __init__(self, spec: StageSpec, run: str, catalogue: Mapping[str, Tables]) -> None:
        self.spec, self.run, self.catalogue = spec, run, catalogue

    def define(self, section: Section) -> dg.AssetsDefinition:
        """Return the asset, or assets, whose form has the values of ``section``."""
        Form, kind = run_config(section), type(section)

        @dg.multi_asset(
            name=self.spec.name,
            specs=list(self._specs(section)),
            check_specs=check_specs(self.spec.name, self.run),
            can_subset=len(self.spec.artifacts) > 1,
            pool=POOL if self.spec.uses_model else None,
        )
        def stage(
            context: dg.AssetExecutionContext,
            config: Form,  # type: ignore[valid-type]  # a class made at run time
            store: StoreResource,
            model: dg.ResourceParam[Any],
            checks: dg.ResourceParam[Any],
        ) -> Iterator[Any]:
            try:
                folder = store.open(self.run, self.catalogue)
                section, means = (
                    read_section(kind, config),
                    Means(_launcher(context), limits=read_section(ChecksConfig, checks)),
                )
                yield from self._run(context, folder, section, read_section(ModelConfig, model), means)
            except CurationError as error:
                again = isinstance(error, CrashError)  # trying anything else again would not help
                raise dg.Failure(description=str(error), allow_retries=again) from error

        return stage

    def _specs(self, section: Section) -> Iterator[dg.AssetSpec]:
        spec = self.spec
        code_version = reachable_code(spec.modules(section)).digest[:16]
        before = [*spec.inputs, *spec.after, *sources_of(spec)]
        for name, tables in spec.artifacts.items():
            yield dg.AssetSpec(
                asset_key(self.run, name),
                deps=[asset_key(self.run, dependency) for dependency in before],
                group_name=spec.group,
                description=spec.description if name == spec.name else spec.companions[name].description,
                code_version=code_version,
                skippable=len(spec.artifacts) > 1,
                metadata={
                    "dagster/column_schema": column_schema(name, tables),
                    "dagster/column_lineage": column_lineage(self.run, name, tables),
                },
            )

    def _run(
        self, context: dg.AssetExecutionContext, run: Run, section: Section, model: ModelConfig, means: Means
    ) -> Iterator[Any]:
        refusal = None
        with _warnings_in(context.log):
            try:
                outcome = make_and_judge(self.spec, section, model, run, means)
            except QuarantineError as error:  # the quarantine stands, and is shown before the stage fails
                verdicts = judge(self.spec.name, section, means.limits, run)
                refusal = error
                outcome = Outcome({_QUARANTINE: run.require(_QUARANTINE)}, cached=False, verdicts=verdicts)
        yield from self._show(context, run, outcome)
        yield from check_results(outcome.verdicts, self.spec.name, self.run, context.selected_asset_check_keys)
        if refusal:
            raise refusal
        require_sound(self.spec.name, outcome.verdicts)

    def _show(self, context: dg.AssetExecutionContext, run: Run, outcome: Outcome) -> Iterator[Any]:
        manifest = outcome.artifact.manifest
        self._report(context, versions_of(self.spec, manifest.provenance))
        if self.spec.name == "evaluation" and not outcome.cached:
            _leave_page(context, run)
        verdict = "unchanged, nothing recomputed" if outcome.cached else "computed"
        context.log.info(f"{manifest.name}: {verdict}; rows {manifest.rows}; fingerprint {manifest.fingerprint[:16]}")
        for name, artifact in outcome.artifacts.items():
            key = asset_key(self.run, name)
            if key in context.selected_asset_keys:
                is_known = outcome.cached and _was_shown(context.instance, key, artifact)
                cost = outcome.cost if artifact is outcome.artifact else None  # of several artifacts it is the stage's
                yield publish(self.spec, artifact, run, outcome.cached, is_known, cost)

    def _report(self, context: dg.AssetExecutionContext, sources: Mapping[str, str]) -> None:
        """Record what the stage found outside the store, unless it is what was observed last."""
        for name, version in sources.items():
            key = asset_key(self.run, name)
            known = context.instance.fetch_observations(key, limit=1).records
            if not known or known[0].asset_observation.data_version != version:
                context.log_event(dg.AssetObservation(key, tags={"dagster/data_version": version}))


def _leave_page(context: dg.AssetExecutionContext, run: Run) -> None:
    from pipeline.report.run_page import write_run_page  # loads the plot library

    try:
        write_run_page(run)
    except CurationError as error:  # the evaluation stands all the same
        context.log.warning(str(error))


class _Forwarding(logging.Handler):
    def __init__(self, log: dg.DagsterLogManager) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.log(record.levelno, record.getMessage())


@contextmanager
def _warnings_in(log: dg.DagsterLogManager) -> Iterator[None]:
    """Have what the library warns of stand in the log of the run, too."""
    logger, handler = logging.getLogger("pipeline"), _Forwarding(log)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _was_shown(instance: dg.DagsterInstance, key: dg.AssetKey, artifact: Artifact) -> bool:
    """Return whether the last that people saw of an asset is this artifact, or whether nobody will look."""
    if instance.is_ephemeral:
        return True
    records = instance.fetch_materializations(key, limit=1).records
    last = records[0].asset_materialization if records else None
    return last is not None and last.metadata["fingerprint"].value == artifact.manifest.fingerprint[:16]


def _launcher(context: dg.AssetExecutionContext) -> Callable[[Sequence[str]], None]:
    """Return what runs a command as a Dagster Pipes process, which reports its progress to the run."""

    def launch(command: Sequence[str]) -> None:
        injector, reader = dg.PipesTempFileContextInjector(), dg.PipesTempFileMessageReader()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.PreviewWarning)  # 1.13 warns of what its own session calls
            # Not PipesSubprocessClient: interrupted, it waits 20 s for the process and then leaves it running (its
            # termination since dagster#18685).
            with dg.open_pipes_session(context=context, context_injector=injector, message_reader=reader) as session:
                run_process(command, session.get_bootstrap_env_vars())

    return launch
