"""What assets share: where artifacts live and which model they are about."""

from pathlib import Path

import dagster as dg

from pipeline.artifacts import ArtifactStore
from pipeline.paths import PROJECT_ROOT


class StoreResource(dg.ConfigurableResource):  # type: ignore[type-arg]  # Dagster's own generic is for other uses
    """Folder of the run's artifacts."""

    root: str
    """Folder of the Parquet artifacts, relative to the project."""

    def open(self) -> ArtifactStore:
        """Return the store."""
        return ArtifactStore(PROJECT_ROOT / Path(self.root))
