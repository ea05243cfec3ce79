"""Keys of assets: every run of the pipeline has assets of its own, told apart by the run's name in front.

Runs of different presets, arms or rounds then never share a history, and marks of what is stale, schedules and
observations work as for any other assets. Partitions by run were dropped: Dagster keeps the staleness of what lies
outside and the versions of code per asset, not per partition.
"""

import dagster as dg


def asset_key(run: str, name: str) -> dg.AssetKey:
    """Return the key of an artifact or a source of a run."""
    return dg.AssetKey([run, name])


def artifact_of(key: dg.AssetKey) -> str:
    """Return the artifact or source that a key names, without its run."""
    return key.path[-1]
