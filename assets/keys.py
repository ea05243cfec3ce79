"""Keys of assets: every run of the pipeline has assets of its own, told apart by the run's name in front.

Runs of different presets, arms or rounds then never share a history, and marks of what is stale, schedules and
observations work as for any other assets, which they do not for partitions (dagster#18921).
"""

import dagster as dg


def asset_key(run: str, name: str) -> dg.AssetKey:
    """Return the key of an artifact or a source of a run; without a run it is the plain name."""
    return dg.AssetKey([run, name] if run else name)


def artifact_of(key: dg.AssetKey) -> str:
    """Return the artifact or source that a key names."""
    return key.path[-1]
