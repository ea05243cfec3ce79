"""The stage ``teacher_lift``: training questions are asked with their own, with further and with wrong examples."""

from pipeline.beliefs.beliefs import sampled_ballots
from pipeline.lift.config import TeacherLiftConfig
from pipeline.lift.lift import confirmed_answers, describe_answers, summarise
from pipeline.lift.trials import draw_trials
from pipeline.models import load_tokenizer
from pipeline.rollouts.config import SampledPrompts
from pipeline.rollouts.run import sample_shards
from pipeline.rollouts.sample import Asking
from pipeline.stage import Task
from pipeline.teacher.config import TeacherContextsConfig
from pipeline.teacher.run import stored_questions
from pipeline.votes.vote import ballots

_TABLE = "lift_rollouts"


def run(task: Task[TeacherLiftConfig]) -> None:
    """Sample, compare and judge; leaves empty tables where no questions are wanted, or none can be tried."""
    section, prompts = task.section, task.settings("rollouts", SampledPrompts)
    if not section.n_questions:
        task.writer.notes = {"skipped": "teacher_lift.n_questions is 0."}
        return
    questions, tokenizer = stored_questions(task.inputs), load_tokenizer(task.model)
    contexts, settings = (
        task.inputs["teacher_contexts"].read(),
        task.settings("teacher_contexts", TeacherContextsConfig),
    )
    trials = draw_trials(contexts, questions, tokenizer, settings, prompts, section)
    if trials.is_empty():
        task.writer.notes = summarise(trials, trials, section)
        return
    asked = questions.pool.join(trials, on="id").with_columns(id="trial")
    sample_shards(task, _TABLE, asked, Asking.of(section, prompts), dict(trials.select("trial", "context").iter_rows()))
    names = trials.select("id", "examples", "trial")
    tried = (
        sampled_ballots(task.writer.shards(_TABLE), asked, tokenizer).rename({"id": "trial"}).join(names, on="trial")
    )
    plain = ballots(task.inputs["rollouts"].scan(), task.inputs["answers"].scan())
    lift = confirmed_answers(tried, questions.pseudo_labels)
    answers = describe_answers(questions.pool, plain, tried)
    task.writer.append("teacher_lift", lift)
    task.writer.append("lift_answers", answers)
    task.writer.notes |= summarise(lift, answers, section)
