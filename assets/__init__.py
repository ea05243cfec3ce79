"""Dagster's view of the pipeline: thin assets around ``pipeline.chain``. No method lives here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import dagster as dg

from assets.automation import build_schedule, build_sensors
from assets.console import plain_console
from assets.keys import asset_key
from assets.rounds import GROUP as ROUNDS_GROUP
from assets.run_config import run_config
from assets.sources import build_sources
from assets.stages import StoreResource, build_assets
from pipeline.config import Config
from pipeline.paths import PROJECT_ROOT
from pipeline.presets import load_config
from pipeline.registry import look_up
from pipeline.stage import StageSpec
from pipeline.stages import STAGES, open_store

STORE: Final = "data"
"""Folder that holds all artifacts (``store``) and runs (``runs``), relative to the project."""
EXECUTORS: Final[Mapping[str, dg.ExecutorDefinition]] = {
    "in_process": dg.in_process_executor,
    "multiprocess": dg.multiprocess_executor,
}
"""How the steps of a run that the UI starts are executed; the command line has its own process do it."""


def run_name(preset: str) -> str:
    """Return the name of a preset's run where none is given."""
    return Path(preset).name.removesuffix(".yaml").removesuffix(".yml")


def resources(config: Config) -> dict[str, Any]:
    """Return what all assets share: the store, and the model's section and the limits of checks as forms."""
    forms = {"model": config.model, "checks": config.checks}
    return {"store": StoreResource(root=STORE)} | {
        name: run_config(section, base=dg.ConfigurableResource)() for name, section in forms.items()
    }


def build_definitions(
    preset: str,
    config: Config | None = None,
    run: str | None = None,
    executor: str = "in_process",
    specs: Sequence[StageSpec] = STAGES,
) -> dg.Definitions:
    """Return assets, jobs and resources of a run of a preset; ``config`` stands in for the preset's own values.

    Raises ConfigError for an unknown preset or executor, and for a name of a run that no folder can have.
    """
    settings = config or load_config(preset)
    run = open_store(PROJECT_ROOT / STORE).run(run or run_name(preset)).name
    optional = [asset_key(run, name) for spec in specs if spec.optional for name in spec.artifacts]
    curation = dg.AssetSelection.groups("curation")
    sources = build_sources(specs, settings, run)
    jobs = [
        whole := dg.define_asset_job(
            "all_stages",
            dg.AssetSelection.all() - dg.AssetSelection.groups(ROUNDS_GROUP) - dg.AssetSelection.assets(*optional),
            description="From raw pool to evaluation.",
        ),
        dg.define_asset_job("curation", curation, description="From raw pool to teacher contexts."),
        observe := dg.define_asset_job(
            "observe_sources",
            dg.AssetSelection.assets(*(source.key for source in sources)),
            description="Looks at files and model, so that the marks of what is stale are true.",
        ),
    ]
    return dg.Definitions(
        assets=[*sources, *build_assets(specs, settings, run)],
        jobs=jobs,
        schedules=[
            dg.ScheduleDefinition(name="daily_observation", job=observe, cron_schedule="0 2 * * *"),
            build_schedule(specs, settings, run, curation),
        ],
        sensors=build_sensors(specs, settings, run, whole),
        resources=resources(settings),
        loggers={"console": plain_console},
        executor=look_up(EXECUTORS, executor, "NEURON_OPSD_EXECUTOR"),
    )
