"""Declaration of the stage ``pseudo_labels``."""

from typing import Final

from pipeline.stage import StageSpec
from pipeline.votes.config import PseudoLabelsConfig
from pipeline.votes.schemas import PSEUDO_LABELS

PSEUDO_LABELS_STAGE: Final = StageSpec(
    name="pseudo_labels",
    section=PseudoLabelsConfig,
    description="Majority votes over the rollouts.",
    group="curation",
    tables={"pseudo_labels": PSEUDO_LABELS},
    run="pipeline.votes.run:run",
    inputs=("rollouts", "answers"),
    plot="pipeline.votes.plot:vote_shares",
)
