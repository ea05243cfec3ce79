"""What assets share: where artifacts live."""

from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from pipeline.paths import PROJECT_ROOT
from pipeline.store.artifact import Tables
from pipeline.store.store import Run, Store


class StoreResource(dg.ConfigurableResource):  # type: ignore[type-arg]  # Dagster's own generic is for other uses
    """Folder of all artifacts and runs."""

    root: str
    """Folder that holds ``store`` and ``runs``, relative to the project."""

    def open(self, run: str, catalogue: Mapping[str, Tables]) -> Run:
        """Return a run of the store."""
        return Store(PROJECT_ROOT / Path(self.root), catalogue).run(run)
