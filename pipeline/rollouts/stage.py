"""Declaration of the stage ``rollouts``."""

from typing import Final

from pipeline.rollouts.config import RolloutsConfig
from pipeline.rollouts.schemas import ROLLOUTS
from pipeline.stage import StageSpec

ROLLOUTS_STAGE: Final = StageSpec(
    name="rollouts",
    section=RolloutsConfig,
    description="Sampled responses to every question: tokens, log-probabilities, finish reasons.",
    group="curation",
    tables={"rollouts": ROLLOUTS},
    run="pipeline.rollouts.run:run",
    inputs=("pool",),
    uses_model=True,
    plot="pipeline.rollouts.plot:response_lengths",
)
