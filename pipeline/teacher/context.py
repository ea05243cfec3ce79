"""Stage ``teacher_contexts``: demonstrations rendered within the teacher's token budget (paper: k = 3).

The most similar demonstration stands last, next to the question. When the budget is short, whole demonstrations are
dropped, least similar first; the question and the assistant header always stay whole.
"""

import polars as pl
from transformers import PreTrainedTokenizerBase

from pipeline.models import encode_chat
from pipeline.prompts import render_demonstrations, render_teacher_prompt
from pipeline.registry import look_up
from pipeline.rollouts.config import Prompting
from pipeline.teacher.builder import Choice, ContextRequest, balance_answers
from pipeline.teacher.builders import BUILDERS
from pipeline.teacher.config import TeacherContextsConfig
from pipeline.teacher.questions import Questions, QuestionSet
from pipeline.teacher.schemas import TEACHER_CONTEXTS


def assemble_contexts(
    targets: Questions,
    sources: Questions,
    tokenizer: PreTrainedTokenizerBase,
    config: TeacherContextsConfig,
    prompting: Prompting,
    question_set: QuestionSet = "representative",
) -> pl.DataFrame:
    """Return TEACHER_CONTEXTS: one row per target, sorted by id.

    Args:
        targets: Questions that get a context: the selected ones (``sources.only(ids)``), or held-out questions with
            tables of their own.
        sources: The pool whose questions are shown.
        tokenizer: Tokenizer with chat template, to count tokens.
        config: Builder, number of demonstrations, budget and seed.
        prompting: Wording of the student's prompt, whose options stand in the pool's order.
        question_set: Which neurons stand for a question.

    A target whose bare prompt exceeds ``config.max_teacher_tokens`` keeps its row, with an empty context.
    Raises ConfigError for an unknown builder, or one that compares what was not stored.
    """
    builder, count = look_up(BUILDERS, config.builder, "teacher_contexts.builder"), config.n_demonstrations
    choices = builder(ContextRequest(targets, sources, config, question_set))
    questions = targets.pool.select("id", "question", "options", "permutation").iter_rows()
    rows = []
    for (target, *asked), ranked in zip(questions, choices, strict=True):
        shown = balance_answers(ranked, count)
        rows.append((target, *_fit(prompting.render(*asked), shown, tokenizer, config.max_teacher_tokens)))
    columns = pl.DataFrame(TEACHER_CONTEXTS.empty_table()).schema
    return pl.DataFrame(rows, schema=columns, orient="row").sort("id")


def _fit(
    prompt: str, chosen: list[Choice], tokenizer: PreTrainedTokenizerBase, budget: int
) -> tuple[str, str, list[str], list[float | None], int, int]:
    """Return the columns after ``id`` with as many of the ``chosen``, most similar first, as the budget allows."""
    for n_shown in range(len(chosen), -1, -1):
        shown = chosen[:n_shown][::-1]
        context = render_demonstrations([(example.prompt, example.response) for example, _ in shown])
        n_tokens = len(encode_chat(tokenizer, render_teacher_prompt(context, prompt)))
        if n_tokens <= budget:
            break
    ids, similarities = [example.id for example, _ in shown], [similarity for _, similarity in shown]
    return prompt, context, ids, similarities, n_tokens, len(chosen) - n_shown
