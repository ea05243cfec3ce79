"""The stage ``context_beliefs``: every question is asked again with its context, built from all the others."""

import polars as pl

from pipeline.answers.read import read_answers
from pipeline.beliefs.beliefs import compare_beliefs, pool_contexts
from pipeline.beliefs.config import ContextBeliefsConfig
from pipeline.models import load_tokenizer
from pipeline.rollouts.config import SampledPrompts
from pipeline.rollouts.run import sample_shards
from pipeline.rollouts.sample import Asking
from pipeline.stage import Task
from pipeline.teacher.run import stored_questions
from pipeline.votes.vote import ballots

_TABLE = "context_rollouts"


def run(task: Task[ContextBeliefsConfig]) -> None:
    """Sample with contexts as the rollouts were sampled without; leaves empty tables where no samples are wanted."""
    section, prompts = task.section, task.settings("rollouts", SampledPrompts)
    if not section.n_samples:
        return
    questions, tokenizer = stored_questions(task.inputs), load_tokenizer(task.model)
    contexts = pool_contexts(questions, tokenizer, section, prompts)
    asking = Asking.of(section, prompts)
    sample_shards(task, _TABLE, questions.pool, asking, contexts)
    informed = []
    for path in task.writer.shards(_TABLE):
        rollouts = pl.read_parquet(path)
        informed.append(ballots(rollouts.lazy(), read_answers(rollouts, questions.pool, tokenizer).lazy()))
    plain = ballots(task.inputs["rollouts"].scan(), task.inputs["answers"].scan())
    task.writer.append("context_beliefs", compare_beliefs(questions.pool, plain, pl.concat(informed)))
