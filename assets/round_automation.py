"""When a round is asked for: when the pool has changed since the last one, at once or once a week.

A round could be made at any time, as each trains anew. Asked for is one only where there is something new to curate: on
an unchanged pool a model that trains on its own answers again and again has nothing to learn but itself.
"""

from collections.abc import Sequence
from typing import Any, Final

import dagster as dg

from assets.automation import SECONDS, because, is_under_way, skip_asked
from assets.stages import StoreResource
from pipeline.config import Config
from pipeline.errors import CurationError
from pipeline.rounds.record import read_rounds, run_of
from pipeline.stages import CATALOGUE, stage_of
from pipeline.staleness import Change, find_changes

_POOL: Final = tuple(stage_of(name) for name in ("raw_pool", "pool"))
_REASONS: Final = frozenset({"sources", "settings"})
"""What changes a pool; that its code changed does not count, as what was judged stands."""


def build_round_automation(
    config: Config, run: str, job: Any, partitions: dg.DynamicPartitionsDefinition
) -> tuple[dg.SensorDefinition, dg.ScheduleDefinition]:
    """Return what asks ``job`` for the next of the rounds ``<run>-rounds``, as a partition that is added for it."""
    told = "Asks for the next round, with the model of the last good one, "

    @dg.sensor(
        name="new_round",
        job=job,
        minimum_interval_seconds=SECONDS,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=f"{told}when the pool has changed since the last round.",
    )
    def new_round(context: dg.SensorEvaluationContext, store: StoreResource) -> dg.RunRequest | dg.SkipReason:
        number, changes = _look(config, run, store)
        if isinstance(changes, dg.SkipReason):
            context.update_cursor("")  # the same change may come again
            return changes
        return skip_asked(context, changes, job) or _request(context.instance, partitions, number, changes)

    @dg.schedule(
        name="weekly_round",
        job=job,
        cron_schedule="0 4 * * 1",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description=f"{told}every week in which the pool has changed.",
    )
    def weekly_round(context: dg.ScheduleEvaluationContext, store: StoreResource) -> dg.RunRequest | dg.SkipReason:
        number, changes = _look(config, run, store)
        if isinstance(changes, dg.SkipReason):
            return changes
        if is_under_way(context.instance, job):
            return dg.SkipReason("a round is under way")
        return _request(context.instance, partitions, number, changes)

    return new_round, weekly_round


def _look(config: Config, run: str, store: StoreResource) -> tuple[int, list[Change] | dg.SkipReason]:
    """Return the number of the next round, and what of its pool is new since the last one, or why it is not for now."""
    number = 0
    try:
        rounds = store.open(f"{run}-rounds", CATALOGUE)
        number = read_rounds(rounds).height + 1
        if number == 1:
            return number, find_changes(_POOL, config, rounds)  # of a folder without a pool: all is new
        changes = find_changes(_POOL, config, run_of(rounds, number - 1))
    except CurationError as error:
        return number, dg.SkipReason(str(error))
    found = [change for change in changes if not _REASONS.isdisjoint(change.because)]
    return number, found or dg.SkipReason(f"the pool is that of round {number - 1}")


def _request(
    instance: dg.DagsterInstance, partitions: dg.DynamicPartitionsDefinition, number: int, changes: Sequence[Change]
) -> dg.RunRequest:
    instance.add_dynamic_partitions(str(partitions.name), [str(number)])
    return dg.RunRequest(partition_key=str(number), tags=because(changes))
