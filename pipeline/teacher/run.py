"""The stage ``teacher_contexts``."""

from collections.abc import Mapping

import polars as pl

from pipeline.models import load_tokenizer
from pipeline.rollouts.config import Prompting
from pipeline.stage import Task
from pipeline.store.artifact import Artifact
from pipeline.teacher.config import TeacherContextsConfig
from pipeline.teacher.context import assemble_contexts
from pipeline.teacher.echo import answer_echo
from pipeline.teacher.questions import Questions


def run(task: Task[TeacherContextsConfig]) -> None:
    """Assemble the teacher's context of every selected question."""
    questions, prompting = stored_questions(task.inputs), task.settings("rollouts", Prompting)
    selected = task.inputs["curated_subset"].read().filter(pl.col("selected"))["id"]
    tokenizer = load_tokenizer(task.model)
    contexts = assemble_contexts(questions.only(selected), questions, tokenizer, task.section, prompting)
    task.writer.append("teacher_contexts", contexts)
    echo = answer_echo(contexts, questions.pseudo_labels, questions.pool, questions.rollouts)
    task.writer.notes = {"demonstrations_dropped": int(contexts["n_dropped"].sum()), **echo}


def stored_questions(artifacts: Mapping[str, Artifact]) -> Questions:
    """Return the pool with its votes, rollouts and neurons from the artifacts of these names."""
    scores = artifacts["neuron_scores"]
    return Questions(
        pool=artifacts["pool"].read(),
        pseudo_labels=artifacts["pseudo_labels"].read(),
        rollouts=artifacts["rollouts"].scan(),
        neuron_scores=scores.scan(),
        stem_scores=scores.scan("stem_scores"),
        rationale_scores=scores.scan("rationale_scores"),
        stem_states=scores.scan("stem_states"),
    )
