"""Declaration of the stage ``proposed_questions``."""

from typing import Final

from pipeline.deduplication.config import Comparison
from pipeline.proposals.config import ProposedQuestionsConfig
from pipeline.proposals.schemas import PROPOSED_QUESTIONS
from pipeline.rollouts.config import SampledPrompts
from pipeline.rollouts.schemas import ROLLOUTS
from pipeline.stage import StageSpec

PROPOSED_QUESTIONS_STAGE: Final = StageSpec(
    name="proposed_questions",
    section=ProposedQuestionsConfig,
    description="Questions that the model wrote from near examples, for the next pool. Optional.",
    group="curation",
    tables={"proposed_questions": PROPOSED_QUESTIONS, "proposal_rollouts": ROLLOUTS, "answer_rollouts": ROLLOUTS},
    run="pipeline.proposals.run:run",
    inputs=("pool", "tests", "rollouts", "pseudo_labels", "neuron_scores"),
    reads={"pool": Comparison, "rollouts": SampledPrompts},
    uses_model=True,
    plot="pipeline.proposals.plot:states",
    optional=True,
)
