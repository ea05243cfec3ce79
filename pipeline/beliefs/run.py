"""The stage ``context_beliefs``: every question is asked again with its context, built from all the others."""

import polars as pl

from pipeline.answers.read import read_answers
from pipeline.beliefs.beliefs import ANSWER_COLUMNS, compare_beliefs
from pipeline.beliefs.config import ContextBeliefsConfig
from pipeline.models import load_tokenizer
from pipeline.rollouts.config import SampledPrompts
from pipeline.rollouts.run import sample_shards
from pipeline.rollouts.sample import Asking
from pipeline.stage import Task
from pipeline.teacher.context import assemble_contexts
from pipeline.teacher.run import stored_questions

_TABLE = "context_rollouts"


def run(task: Task[ContextBeliefsConfig]) -> None:
    """Sample with contexts as the rollouts were sampled without; leaves empty tables where no samples are wanted."""
    section, prompts = task.section, task.settings("rollouts", SampledPrompts)
    if not section.n_samples:
        return
    questions, tokenizer = stored_questions(task.inputs), load_tokenizer(task.model)
    contexts = assemble_contexts(questions, questions, tokenizer, section, prompts)
    asking = Asking(
        prompting=prompts,
        sampling=prompts,
        n_samples=section.n_samples,
        seed=section.seed,
        batch_tokens=section.batch_tokens,
    )
    shown = dict(contexts.select("id", "privileged_context").iter_rows())
    sample_shards(task, _TABLE, questions.pool, asking, shown)
    asked = questions.pool.select("id", "options")
    informed = []
    for path in task.writer.shards(_TABLE):
        rollouts = pl.read_parquet(path)
        answers = read_answers(rollouts, asked, tokenizer)
        informed.append(answers.join(rollouts.select("id", "sample", "finish_reason"), on=["id", "sample"]))
    reasons = task.inputs["rollouts"].scan().select("id", "sample", "finish_reason")
    plain = task.inputs["answers"].scan().join(reasons, on=["id", "sample"]).select(ANSWER_COLUMNS).collect()
    beliefs = compare_beliefs(questions.pool, plain, pl.concat(informed).select(ANSWER_COLUMNS))
    task.writer.append("context_beliefs", beliefs)
