"""Declaration of the stage ``context_beliefs``."""

from typing import Final

from pipeline.beliefs.config import ContextBeliefsConfig
from pipeline.beliefs.schemas import CONTEXT_BELIEFS
from pipeline.rollouts.config import SampledPrompts
from pipeline.rollouts.schemas import ROLLOUTS
from pipeline.stage import StageSpec

CONTEXT_BELIEFS_STAGE: Final = StageSpec(
    name="context_beliefs",
    section=ContextBeliefsConfig,
    description="Answers with the teacher's context against those without. Empty unless samples are asked for.",
    group="curation",
    tables={"context_beliefs": CONTEXT_BELIEFS, "context_rollouts": ROLLOUTS},
    run="pipeline.beliefs.run:run",
    inputs=("pool", "rollouts", "answers", "pseudo_labels", "neuron_scores"),
    reads={"rollouts": SampledPrompts},
    uses_model=True,
    plot="pipeline.beliefs.plot:belief_shifts",
)
