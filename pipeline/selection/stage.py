"""Declaration of the stage ``curated_subset``."""

from typing import Final

from pipeline.selection.config import CuratedSubsetConfig
from pipeline.selection.schemas import CURATED_SUBSET
from pipeline.stage import StageSpec

CURATED_SUBSET_STAGE: Final = StageSpec(
    name="curated_subset",
    section=CuratedSubsetConfig,
    description="Which questions become training questions, and why.",
    group="curation",
    tables={"curated_subset": CURATED_SUBSET},
    run="pipeline.selection.run:run",
    inputs=("pool", "pseudo_labels", "neuron_scores", "context_beliefs"),
    plot="pipeline.selection.plot:scores",
)
