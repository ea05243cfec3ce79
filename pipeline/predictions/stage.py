"""Declaration of the stages that ask models the tests: one for each model, so that those of the base are made once."""

from typing import Final

from pipeline.predictions.config import PredictionsConfig
from pipeline.predictions.contenders import CONTENDERS, Contender
from pipeline.rollouts.config import SampledPrompts
from pipeline.rollouts.schemas import ROLLOUTS
from pipeline.stage import StageSpec


def _spec(contender: Contender) -> StageSpec:
    return StageSpec(
        name=contender.predictions,
        section=PredictionsConfig,
        description=f"Responses of {contender.described} to the tests.",
        group="evaluation",
        tables={"in_domain": ROLLOUTS, "out_of_domain": ROLLOUTS},
        run="pipeline.predictions.run:run",
        inputs=("tests", *contender.adapter),
        after=("rollouts",),  # whose settings it reads
        reads={"rollouts": SampledPrompts},
        uses_model=True,
        settings="predictions",
        plot="pipeline.rollouts.plot:response_lengths",
    )


PREDICTIONS_STAGES: Final = tuple(_spec(contender) for contender in CONTENDERS)
