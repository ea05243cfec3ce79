"""Declaration of the stage ``merged_model``."""

from typing import Final

from pipeline.rounds.config import RoundsConfig
from pipeline.rounds.schemas import MERGED_MODEL
from pipeline.stage import StageSpec

MERGED_MODEL_STAGE: Final = StageSpec(
    name="merged_model",
    section=RoundsConfig,
    description="Base model with the distilled adapter merged in, for the next round. Optional.",
    group="rounds",
    tables={"merged_model": MERGED_MODEL},
    run="pipeline.rounds.merge:run",
    inputs=("distilled_adapter",),
    uses_model=True,
    settings="rounds",
    plot="pipeline.rounds.plot:norms",
    optional=True,
)
