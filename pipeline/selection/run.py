"""The stage ``curated_subset``."""

from pipeline.selection.config import CuratedSubsetConfig
from pipeline.selection.confounds import confounds
from pipeline.selection.rule import Signals
from pipeline.selection.subset import select_subset
from pipeline.stage import Task


def run(task: Task[CuratedSubsetConfig]) -> None:
    """Choose the training questions."""
    scores = task.inputs["neuron_scores"]
    signals = Signals(
        pool=task.inputs["pool"].read(),
        pseudo_labels=task.inputs["pseudo_labels"].read(),
        neuron_sizes=scores.read("neuron_sizes"),
        neuron_scores=scores.scan(),
        stem_scores=scores.scan("stem_scores"),
        beliefs=task.inputs["context_beliefs"].read(),
        seed=task.section.seed,
    )
    subset = select_subset(signals, task.section)
    task.writer.append("curated_subset", subset)
    task.writer.notes = confounds(subset, signals)
