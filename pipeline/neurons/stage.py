"""Declaration of the stage ``neuron_scores``."""

from typing import Final

from pipeline.neurons.config import NeuronScoresConfig
from pipeline.neurons.schemas import (
    NEURON_SCORES,
    NEURON_SIZES,
    RATIONALE_SCORES,
    STEM_SCORES,
    STEM_STATES,
    UNSCORED_ROLLOUTS,
)
from pipeline.stage import StageSpec

NEURON_SCORES_STAGE: Final = StageSpec(
    name="neuron_scores",
    section=NeuronScoresConfig,
    description="MLP neurons that carry each rollout, its rationale and its question's stem, with their contributions.",
    group="curation",
    tables={
        "neuron_scores": NEURON_SCORES,
        "neuron_sizes": NEURON_SIZES,
        "rationale_scores": RATIONALE_SCORES,
        "stem_scores": STEM_SCORES,
        "stem_states": STEM_STATES,
        "unscored_rollouts": UNSCORED_ROLLOUTS,
    },
    run="pipeline.neurons.run:run",
    inputs=("rollouts", "answers"),
    uses_model=True,
    plot="pipeline.neurons.plot:support",
)
