"""The stage ``causal_check``."""

from pipeline.causal.config import CausalCheckConfig
from pipeline.causal.silence import silence_responses, summarise
from pipeline.models import load_model
from pipeline.neurons.config import TokenPosition
from pipeline.stage import Task


def run(task: Task[CausalCheckConfig]) -> None:
    """Silence the neurons that carry responses, against random ones: does the signal mean anything for this model?"""
    position = task.settings("neuron_scores", TokenPosition).position
    rollouts, scores = (task.inputs[name].scan() for name in ("rollouts", "neuron_scores"))
    table = silence_responses(rollouts, scores, load_model(task.model), task.section, position)
    task.writer.append("causal_check", table)
    task.writer.notes = summarise(table, task.section)
