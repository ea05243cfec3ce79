"""What is tried: training questions with their own examples, with further ones, and with another question's.

*Own* is the context that the question is trained with. *Further* are the next nearest examples of the same builder, as
many, none of them shown before. *Wrong* is the own context of another training question that shares no example with
either and is not made of the question itself: the next such one in an order drawn by the seed.
"""

from typing import Final

import polars as pl
from transformers import PreTrainedTokenizerBase

from pipeline.lift.config import TeacherLiftConfig
from pipeline.prompts import render_demonstrations
from pipeline.rollouts.config import Prompting
from pipeline.seeding import derive_seed
from pipeline.teacher.config import TeacherContextsConfig
from pipeline.teacher.context import assemble_contexts
from pipeline.teacher.questions import Questions

OWN, FURTHER, WRONG = TRIED = "own", "further", "wrong"
_UNBOUNDED: Final = 2**31 - 1


def draw_trials(
    contexts: pl.DataFrame,
    questions: Questions,
    tokenizer: PreTrainedTokenizerBase,
    config: TeacherContextsConfig,
    prompting: Prompting,
    section: TeacherLiftConfig,
) -> pl.DataFrame:
    """Return what is asked, three rows per question: ``id``, ``examples``, ``context`` and a name, ``trial``.

    Args:
        contexts: Of schema TEACHER_CONTEXTS, as ``config`` made them.
        questions: The pool with its votes, rollouts and neurons.
        tokenizer: Tokenizer with chat template, to count tokens.
        config: Builder and number of examples.
        prompting: Wording of the student's prompt.
        section: Number of questions, of which those that lack own, further or wrong examples are left out, and seed of
            the order in which questions are drawn and wrong contexts looked for.
    """
    own, shown = (
        {key: value for key, value, ids in contexts.select("id", column, ids="demonstration_ids").iter_rows() if ids}
        for column in ("privileged_context", "demonstration_ids")
    )
    order = sorted(own, key=lambda key: derive_seed(section.seed, "teacher_lift", key))
    more = {"n_demonstrations": 2 * config.n_demonstrations, "max_teacher_tokens": _UNBOUNDED}
    wide = config.model_copy(update=more)
    nearest = assemble_contexts(questions.only(order[: section.n_questions]), questions, tokenizer, wide, prompting)
    examples = {example.id: (example.prompt, example.response) for example in questions.demonstrations()}
    rows = []
    for key, ids in nearest.select("id", "demonstration_ids").iter_rows():
        further = [other for other in ids if other not in shown[key]][-len(shown[key]) :]  # the nearest stand last
        seen, place = {key, *shown[key], *further}, order.index(key)
        other = next((other for other in order[place + 1 :] + order[:place] if seen.isdisjoint(shown[other])), None)
        if other and len(further) == len(shown[key]):
            told = own[key], render_demonstrations([examples[each] for each in further]), own[other]
            rows += [(key, *row) for row in zip(TRIED, told, strict=True)]
    trials = pl.DataFrame(rows, dict.fromkeys(("id", "examples", "context"), pl.String), orient="row")
    return trials.with_columns(trial=pl.format("{}-{}", "examples", "id"))
