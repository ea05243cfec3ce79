"""Declaration of the stage ``answers``."""

from typing import Final

from pipeline.answers.config import AnswersConfig
from pipeline.answers.schemas import ANSWERS
from pipeline.stage import StageSpec

ANSWERS_STAGE: Final = StageSpec(
    name="answers",
    section=AnswersConfig,
    description="The answer that each response states, or why there is none, and the options' probabilities there.",
    group="curation",
    tables={"answers": ANSWERS},
    run="pipeline.answers.run:run",
    inputs=("pool", "rollouts"),
    uses_model=True,
    plot="pipeline.answers.plot:extractions",
)
