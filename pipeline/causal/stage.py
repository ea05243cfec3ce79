"""Declaration of the stage ``causal_check``."""

from typing import Final

from pipeline.causal.config import CausalCheckConfig
from pipeline.causal.schemas import CAUSAL_CHECK
from pipeline.neurons.config import TokenPosition
from pipeline.stage import StageSpec

CAUSAL_CHECK_STAGE: Final = StageSpec(
    name="causal_check",
    section=CausalCheckConfig,
    description="What silencing each response's leading neurons costs it, against random neurons. Optional.",
    group="evaluation",
    tables={"causal_check": CAUSAL_CHECK},
    run="pipeline.causal.run:run",
    inputs=("rollouts", "neuron_scores"),
    reads={"neuron_scores": TokenPosition},
    uses_model=True,
    plot="pipeline.causal.plot:drops",
    optional=True,
)
