"""Declaration of the stages that ask models the tests: one for each model, so that those of the base are made once."""

from typing import Final

from pipeline.predictions.config import PredictionsConfig
from pipeline.rollouts.config import SampledPrompts
from pipeline.rollouts.schemas import ROLLOUTS
from pipeline.stage import StageSpec


def _spec(model: str, described: str, adapter: tuple[str, ...]) -> StageSpec:
    return StageSpec(
        name=f"{model}_predictions",
        section=PredictionsConfig,
        description=f"Responses of {described} to the tests.",
        group="evaluation",
        tables={"in_domain": ROLLOUTS, "out_of_domain": ROLLOUTS},
        run="pipeline.predictions.run:run",
        inputs=("tests", *adapter),
        after=("rollouts",),  # whose settings it reads
        reads={"rollouts": SampledPrompts},
        uses_model=True,
        settings="predictions",
        plot="pipeline.rollouts.plot:response_lengths",
    )


BASE_PREDICTIONS: Final = _spec("base", "the untouched model", ())
RIVAL_PREDICTIONS: Final = _spec("rival", "the model trained by the rival method", ("rival_adapter",))
DISTILLED_PREDICTIONS: Final = _spec("distilled", "the distilled model", ("distilled_adapter",))
