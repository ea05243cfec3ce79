"""When runs are asked for: by new files, by a new model, by the clock; never where nothing would be made again.

All are off until they are switched on in the UI. What a run would make anew is told by fingerprints, as it would find
out itself, so a tick costs the reading of digests.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import dagster as dg

from assets.stages import StoreResource
from pipeline.config import Config
from pipeline.digests import digest_json
from pipeline.errors import CurationError
from pipeline.stage import StageSpec
from pipeline.staleness import Change, find_changes

SECONDS: Final = 60
"""Shortest time between two looks of a sensor; own choice: files are dropped by people."""
_Asked = dg.RunRequest | dg.SkipReason
_UNDER_WAY: Final = [
    dg.DagsterRunStatus[name] for name in ("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")
]
_NOTHING: Final = dg.SkipReason("nothing would be made again")


def build_sensors(specs: Sequence[StageSpec], config: Config, run: str, job: Any) -> list[dg.SensorDefinition]:
    """Return the sensors that have ``job`` run when files or the model changed."""
    look = _looking(specs, config, run)
    return [
        _sensor("new_questions", "New or changed files of questions.", frozenset({"sources", "missing"}), job, look),
        _sensor("new_model", "Another language model than the run was made with.", frozenset({"model"}), job, look),
    ]


def build_schedule(specs: Sequence[StageSpec], config: Config, run: str, target: Any) -> dg.ScheduleDefinition:
    """Return the schedule that curates again every week if anything would come out anew."""
    look = _looking([spec for spec in specs if spec.group == "curation"], config, run)

    # Not RunRequest(stale_assets_only=True): an asset is stale by its own inputs alone, so a new file would take a week
    # per stage to get through, and what is stale cannot be asked for otherwise (dagster#19368).
    @dg.schedule(
        name="weekly_curation",
        target=target,
        cron_schedule="0 3 * * 1",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Curates again if anything changed: files, model, settings or code.",
    )
    def weekly_curation(store: StoreResource) -> _Asked:
        changes = look(store)
        if isinstance(changes, dg.SkipReason):
            return changes
        return dg.RunRequest(tags=because(changes)) if changes else _NOTHING

    return weekly_curation


def _looking(
    specs: Sequence[StageSpec], config: Config, run: str
) -> Callable[[StoreResource], list[Change] | dg.SkipReason]:
    asked = [spec for spec in specs if not spec.optional]
    catalogue = {name: tables for spec in specs for name, tables in spec.artifacts.items()}

    def look(store: StoreResource) -> list[Change] | dg.SkipReason:
        try:
            return find_changes(asked, config, store.open(run, catalogue))
        except CurationError as error:
            return dg.SkipReason(str(error))

    return look


def _sensor(
    name: str,
    description: str,
    reasons: frozenset[str],
    job: Any,
    look: Callable[[StoreResource], list[Change] | dg.SkipReason],
) -> dg.SensorDefinition:
    @dg.sensor(
        name=name,
        job=job,
        minimum_interval_seconds=SECONDS,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=f"{description} Asks for a run of all stages, of which only what changed is made again.",
    )
    def sensor(context: dg.SensorEvaluationContext, store: StoreResource) -> _Asked:
        changes = look(store)
        if isinstance(changes, dg.SkipReason):
            return changes
        if not changes:
            context.update_cursor("")  # the same change may come again
            return _NOTHING
        found = [change for change in changes if not reasons.isdisjoint(change.because)]
        if not found:
            return dg.SkipReason(f"not for this sensor: {_told(changes)}")
        return skip_asked(context, found, job) or dg.RunRequest(tags=because(found))

    return sensor


def skip_asked(context: dg.SensorEvaluationContext, found: Sequence[Change], job: Any) -> dg.SkipReason | None:
    """Return why a sensor does not ask a run of ``job`` for these changes now; none where it is to ask, once."""
    wanted = digest_json([change.fingerprint for change in found])
    if context.cursor == wanted:
        return dg.SkipReason(f"asked for already: {_told(found)}; launch the job by hand if that run failed")
    if is_under_way(context.instance, job):
        return dg.SkipReason("a run is under way: what it does not see is looked at when it has ended")
    context.update_cursor(wanted)
    return None


def is_under_way(instance: dg.DagsterInstance, job: Any) -> bool:
    """Return whether a run of a job waits or goes on."""
    return instance.get_runs_count(dg.RunsFilter(job_name=job.name, statuses=_UNDER_WAY)) > 0


def because(changes: Sequence[Change]) -> dict[str, str]:
    """Return the tags of a run that is asked for by these changes."""
    return {"neuron_opsd/because": _told(changes)[:200]}


def _told(changes: Sequence[Change]) -> str:
    return "; ".join(f"{change.stage} ({', '.join(change.because)})" for change in changes)
