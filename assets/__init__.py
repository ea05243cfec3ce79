"""Dagster's view of the pipeline: thin assets around ``pipeline.chain``. No method lives here."""

from pathlib import Path

import dagster as dg

from assets.console import plain_console
from assets.resources import StoreResource
from assets.run_config import run_config
from assets.stages import build_assets
from pipeline.config import Config
from pipeline.presets import load_config

RUNS = "data/runs"
"""Folder of all runs, relative to the project."""


def build_definitions(preset: str, config: Config | None = None) -> dg.Definitions:
    """Return assets, jobs and resources for a preset; ``config`` stands in for the preset's own values."""
    settings = config or load_config(preset)
    model = run_config(settings.model, base=dg.ConfigurableResource)
    return dg.Definitions(
        assets=build_assets(settings),
        jobs=[
            dg.define_asset_job("all_stages", description="From raw pool to evaluation."),
            dg.define_asset_job(
                "curation", dg.AssetSelection.groups("curation"), description="From raw pool to teacher contexts."
            ),
        ],
        schedules=[
            dg.ScheduleDefinition(
                name="weekly_curation",
                target=dg.AssetSelection.groups("curation"),
                cron_schedule="0 3 * * 1",
                description="Curates again; stages whose inputs did not change are not recomputed.",
            )
        ],
        resources={
            "store": StoreResource(root=f"{RUNS}/{Path(preset).stem}"),
            "model": model(),
            "pipes": dg.PipesSubprocessClient(),
        },
        loggers={"console": plain_console},
        executor=dg.in_process_executor,
    )
