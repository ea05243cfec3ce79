"""The stage ``pseudo_labels``."""

from pipeline.stage import Task
from pipeline.votes.config import PseudoLabelsConfig
from pipeline.votes.vote import ballots, vote


def run(task: Task[PseudoLabelsConfig]) -> None:
    """Vote over the answers of every question."""
    rollouts, answers = (task.inputs[name].scan() for name in ("rollouts", "answers"))
    task.writer.append("pseudo_labels", vote(ballots(rollouts, answers), task.section))
