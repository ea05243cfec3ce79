"""Declaration of the stage ``teacher_contexts``."""

from typing import Final

from pipeline.rollouts.config import Prompting
from pipeline.stage import StageSpec
from pipeline.teacher.config import TeacherContextsConfig
from pipeline.teacher.schemas import TEACHER_CONTEXTS

TEACHER_CONTEXTS_STAGE: Final = StageSpec(
    name="teacher_contexts",
    section=TeacherContextsConfig,
    description="Worked examples that the teacher sees before each training question.",
    group="curation",
    tables={"teacher_contexts": TEACHER_CONTEXTS},
    run="pipeline.teacher.run:run",
    inputs=("pool", "rollouts", "pseudo_labels", "neuron_scores", "curated_subset"),
    reads={"rollouts": Prompting},
    uses_model=True,
    plot="pipeline.teacher.plot:teacher_lengths",
)
