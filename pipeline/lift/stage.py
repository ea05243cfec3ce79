"""Declaration of the stage ``teacher_lift``."""

from typing import Final

from pipeline.lift.config import TeacherLiftConfig
from pipeline.lift.schemas import LIFT_ANSWERS, TEACHER_LIFT
from pipeline.rollouts.config import SampledPrompts
from pipeline.rollouts.schemas import ROLLOUTS
from pipeline.stage import StageSpec
from pipeline.teacher.config import TeacherContextsConfig

TEACHER_LIFT_STAGE: Final = StageSpec(
    name="teacher_lift",
    section=TeacherLiftConfig,
    description="Whether the teacher's examples tell the model anything, against wrong examples and without gold.",
    group="curation",
    tables={"teacher_lift": TEACHER_LIFT, "lift_answers": LIFT_ANSWERS, "lift_rollouts": ROLLOUTS},
    run="pipeline.lift.run:run",
    inputs=("pool", "rollouts", "answers", "pseudo_labels", "neuron_scores", "teacher_contexts"),
    reads={"rollouts": SampledPrompts, "teacher_contexts": TeacherContextsConfig},
    uses_model=True,
    plot="pipeline.lift.plot:confirmed_answers",
)
