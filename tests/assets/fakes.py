"""Stages that need the model's turn and take their time, for runs with a process per step."""

import json
import os
import time
from pathlib import Path

import dagster as dg
import pyarrow as pa

from assets import build_definitions
from pipeline.pool.stage import RAW_POOL_STAGE
from pipeline.presets import load_config
from pipeline.selection.config import CuratedSubsetConfig
from pipeline.stage import StageSpec, Task

SECONDS = 1.5


def run(task: Task[CuratedSubsetConfig]) -> None:
    """Write down when this ran, and where."""
    started = time.time()
    time.sleep(SECONDS)
    record = {"pid": os.getpid(), "started": started, "ended": time.time()}
    Path(os.environ["FAKES_FOLDER"], f"{task.writer.name}.json").write_text(json.dumps(record))


def fake(name: str) -> StageSpec:
    """Return a stage without inputs that is said to use the model."""
    return StageSpec(
        name=name,
        section=CuratedSubsetConfig,
        description="Sleeps.",
        group="curation",
        tables={name: pa.schema([pa.field("id", pa.string(), nullable=False)])},
        run="tests.assets.fakes:run",
        uses_model=True,
        settings="curated_subset",
    )


FAKES = (fake("left"), fake("right"))


def job() -> dg.JobDefinition:
    """Return a job over the fakes and a real stage, with a process per step."""
    config = load_config(overrides=["raw_pool.limit=3"])
    definitions = build_definitions("reference", config, executor="multiprocess", specs=(RAW_POOL_STAGE, *FAKES))
    return definitions.resolve_job_def("all_stages")
