"""Declaration of the stages that ask models the tests: one for each model, so that those of the base are made once."""

from typing import Final

from pipeline.predictions.config import ASK, PredictionsConfig
from pipeline.predictions.contenders import CONTENDERS, Contender
from pipeline.predictions.schemas import P_TRUE
from pipeline.rollouts.config import SampledPrompts
from pipeline.rollouts.schemas import ROLLOUTS
from pipeline.stage import StageSpec


def _spec(contender: Contender) -> StageSpec:
    return StageSpec(
        name=contender.predictions,
        section=PredictionsConfig,
        description=f"Responses of {contender.described} to the tests.",
        group="evaluation",
        tables={
            "in_domain": ROLLOUTS,
            "out_of_domain": ROLLOUTS,
            "in_domain_p_true": P_TRUE,
            "out_of_domain_p_true": P_TRUE,
        },
        run="pipeline.predictions.run:run",
        inputs=("tests", *contender.adapter),
        after=("rollouts",),  # whose settings it reads
        reads={"rollouts": SampledPrompts},
        code=lambda section: (ASK.partition(":")[0],) if section.p_true else (),
        uses_model=True,
        settings="predictions",
        plot="pipeline.rollouts.plot:response_lengths",
    )


PREDICTIONS_STAGES: Final = tuple(_spec(contender) for contender in CONTENDERS)
