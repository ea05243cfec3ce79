"""Rounds as partitions: one asset that makes and judges a round, and one that is there once its model was promoted.

The drift gate is a blocking check: of a round that it refuses nothing comes after. A partition is the number of a
round; sensor and schedule add the next one, or people do by hand.
"""

import base64
from collections.abc import Iterator
from typing import Any, Final

import dagster as dg
import polars as pl

from assets.keys import asset_key
from assets.round_automation import build_round_automation
from assets.run_config import read_section, run_config
from assets.stages import POOL, StoreResource
from pipeline.checks.config import ChecksConfig
from pipeline.config import Config
from pipeline.errors import CurationError
from pipeline.markdown import markdown_table
from pipeline.rounds.config import RoundsConfig
from pipeline.rounds.record import read_drift, read_rounds, run_of
from pipeline.stages import CATALOGUE
from pipeline.store.store import Run

GROUP: Final = "rounds"
ROUNDS, PROMOTED, DRIFT, GOLD = "rounds", "promoted_model", "drift", "gold_drift"


def build_rounds(settings: Config, run: str) -> dg.Definitions:
    """Return assets, job and automation of the rounds ``<run>-rounds``, to be merged with the definitions of ``run``.

    The gate's limits are a form with the values of ``settings``.
    """
    Form, key = run_config(settings.rounds), asset_key(run, ROUNDS)
    partitions = dg.DynamicPartitionsDefinition(name=f"{run}-rounds")

    @dg.asset(
        key=key,
        partitions_def=partitions,
        group_name=GROUP,
        pool=POOL,
        check_specs=_check_specs(key),
        description="A round: the whole chain with the model of the last round that was promoted, and what the drift "
        "gate says of the model that it made. Earlier rounds are made first; what was judged stands.",
    )
    def rounds(
        context: dg.AssetExecutionContext,
        config: Form,  # type: ignore[valid-type]  # a class made at run time
        store: StoreResource,
        checks: dg.ResourceParam[Any],
    ) -> Iterator[Any]:
        from pipeline.rounds.report import PLOT_FILE, write_report  # with libraries that a look at the graph can spare
        from pipeline.rounds.run import run_rounds

        limits = {"rounds": read_section(RoundsConfig, config), "checks": read_section(ChecksConfig, checks)}
        own, number = settings.model_copy(update=limits), _number(context.partition_key)
        made = store.open(f"{run}-rounds", CATALOGUE)
        try:
            run_rounds(own, made, number)
            write_report(own, made)
        except CurationError as error:
            raise dg.Failure(description=str(error), allow_retries=False) from error
        yield from _show(key, made, number, (made.folder / PLOT_FILE).read_bytes())

    @dg.asset(
        key=asset_key(run, PROMOTED),
        deps=[key],
        partitions_def=partitions,
        group_name=GROUP,
        description="The last model that the drift gate let pass: what the next round begins with.",
    )
    def promoted_model(store: StoreResource) -> dg.MaterializeResult[Any]:
        model = store.open(f"{run}-rounds", CATALOGUE).require("merged_model")
        path = dg.MetadataValue.path(str(model.folder / "model"))
        return dg.MaterializeResult(metadata={"path": path}, data_version=dg.DataVersion(model.manifest.digest))

    both = [rounds, promoted_model]
    job = dg.define_asset_job("next_round", both, description="Makes and judges a round, the number of the partition.")
    sensor, schedule = build_round_automation(settings, run, job, partitions)
    return dg.Definitions(both, jobs=[job], sensors=[sensor], schedules=[schedule])


def _number(partition: str) -> int:
    if not (partition.isascii() and partition.isdigit() and int(partition)):
        raise dg.Failure(f"partition '{partition}': name the number of a round, 1 or more", allow_retries=False)
    return int(partition)


def _check_specs(key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    said = {
        DRIFT: "Fails where the round's model has drifted past a limit: it is not promoted, and the next round begins "
        "with the last model that was. Lower distilled_adapter.learning_rate or steps, or raise the limit that the "
        "verdict names.",
        GOLD: "Fails where the tests' gold answers show a loss past a limit. Blocks only with rounds.gold_may_refuse.",
    }
    return [dg.AssetCheckSpec(name, asset=key, blocking=name == DRIFT, description=text) for name, text in said.items()]


def _show(key: dg.AssetKey, made: Run, number: int, plot: bytes) -> Iterator[Any]:
    from pipeline.rounds.drift import SIGNALS

    row, drift = read_rounds(made).row(number - 1, named=True), read_drift(made).filter(round=number)
    image = f"![plot](data:image/png;base64,{base64.b64encode(plot).decode()})"
    yield dg.MaterializeResult(
        asset_key=key,
        metadata={name: row[name] for name in ("base", "promoted", "verdict", "questions")}
        | {f"drift/{signal}": after for signal, after in drift.select("signal", "after").iter_rows()}
        | {"signals": dg.MetadataValue.md(markdown_table(drift.drop("round"))), "plot": dg.MetadataValue.md(image)}
        | {"path": dg.MetadataValue.path(str(run_of(made, number).folder))},
        data_version=dg.DataVersion(row["model"]),
    )
    yield dg.AssetCheckResult(asset_key=key, check_name=DRIFT, passed=row["promoted"], description=row["verdict"])
    gold = [name for name, signal in SIGNALS.items() if signal.reads_gold]
    past = drift.filter(pl.col("signal").is_in(gold), pl.col("strain") >= 1)
    yield dg.AssetCheckResult(
        asset_key=key,
        check_name=GOLD,
        passed=past.is_empty(),
        severity=dg.AssetCheckSeverity.WARN,
        description=", ".join(past["signal"]) or "no loss past its limit",
    )
