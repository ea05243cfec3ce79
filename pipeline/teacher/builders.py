"""The context builders: a new one is a file, a line here and its name in ``pipeline.teacher.config``."""

from collections.abc import Mapping
from typing import Final

from pipeline.teacher.builder import ContextBuilder
from pipeline.teacher.hidden_cosine import hidden_cosine
from pipeline.teacher.lexical import lexical
from pipeline.teacher.neuron_overlap import neuron_overlap
from pipeline.teacher.none import none
from pipeline.teacher.pseudo_solution import pseudo_solution
from pipeline.teacher.rationale_overlap import rationale_overlap
from pipeline.teacher.stem_overlap import stem_overlap
from pipeline.teacher.uniform import uniform

BUILDERS: Final[Mapping[str, ContextBuilder]] = {
    "neuron_overlap": neuron_overlap,
    "stem_overlap": stem_overlap,
    "rationale_overlap": rationale_overlap,
    "hidden_cosine": hidden_cosine,
    "lexical": lexical,
    "pseudo_solution": pseudo_solution,
    "random": uniform,
    "none": none,
}
"""Builders by the name that ``teacher_contexts.builder`` gives."""
