"""Declaration of the stage ``evaluation``."""

from typing import Final

from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.schemas import METRICS, PREDICTIONS
from pipeline.predictions.contenders import CONTENDERS
from pipeline.stage import StageSpec

EVALUATION_STAGE: Final = StageSpec(
    name="evaluation",
    section=EvaluationConfig,
    description="Untouched, rival and distilled models on held-out questions.",
    group="evaluation",
    tables={"predictions": PREDICTIONS, "metrics": METRICS},
    run="pipeline.evaluation.run:run",
    inputs=(
        *("pool", "gold_labels", "tests", "test_labels", "pseudo_labels", "teacher_lift"),
        *(name for contender in CONTENDERS for name in (*contender.adapter, contender.predictions)),
    ),
    uses_model=True,
    plot="pipeline.evaluation.run:plot",
)
