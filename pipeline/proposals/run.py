"""The stage ``proposed_questions``: near examples, a new question, the pool's checks, and a vote on its answer."""

import json
from typing import Any, Final

import polars as pl
import pyarrow as pa

from pipeline.beliefs.beliefs import sampled_ballots
from pipeline.deduplication.config import Comparison
from pipeline.generation.generator import STOP
from pipeline.models import load_tokenizer
from pipeline.pool.question import Question
from pipeline.pool.schemas import RAW_POOL
from pipeline.prompts import render_question
from pipeline.proposals.checks import answerable, known
from pipeline.proposals.config import ProposedQuestionsConfig
from pipeline.proposals.parse import read_question
from pipeline.proposals.schemas import PROPOSED_QUESTIONS
from pipeline.rollouts.config import Prompting, SampledPrompts
from pipeline.rollouts.run import sample_shards
from pipeline.rollouts.sample import Asking
from pipeline.seeding import derive_seed
from pipeline.stage import Task
from pipeline.store.writer import ArtifactWriter
from pipeline.teacher.builder import ContextRequest
from pipeline.teacher.builders import BUILDERS
from pipeline.teacher.config import TeacherContextsConfig
from pipeline.teacher.questions import Questions
from pipeline.teacher.run import stored_questions

POOL_FILE: Final = "pool.jsonl"
"""File of the artifact with the accepted questions: a source for ``raw_pool.further_paths``."""
_BARE: Final = Prompting(instruction="", open_instruction="")
_FIELDS: Final = ("question", "options", "domain")


def run(task: Task[ProposedQuestionsConfig]) -> None:
    """Write the table of all proposals, whatever became of them, and the file of those that may join the next pool."""
    section, writer, questions = task.section, task.writer, stored_questions(task.inputs)
    drawn = draw_examples(questions, section)
    _sample_proposals(task, drawn, questions.pool)
    written = pl.scan_parquet(writer.shards("proposal_rollouts")).select("id", "response", "finish_reason").collect()
    rows, new = _read(drawn.join(written, on="id", maintain_order="left"), questions.pool)
    tests = pl.concat([task.inputs["tests"].read(split) for split in ("in_domain", "out_of_domain")])
    old = known(new, questions.pool, tests, task.settings("pool", Comparison))
    verdicts = {row.pop("id"): row for row in old.to_dicts()}
    if len(verdicts) < new.height:
        verdicts |= {row.pop("id"): row for row in _ask(task, new.join(old, on="id", how="anti")).to_dicts()}
    judged = [row | verdicts[row["id"]] if row["state"] == "new" else row for row in rows]
    proposals = pl.DataFrame(pa.Table.from_pylist(judged, schema=PROPOSED_QUESTIONS))
    writer.append("proposed_questions", proposals)
    _write_pool(writer, proposals)


def draw_examples(questions: Questions, section: ProposedQuestionsConfig) -> pl.DataFrame:
    """Return ``id`` of each proposal and ``examples``, ids of a question drawn and of those nearest to it.

    Questions are drawn in an order of the seed, and again from its beginning where more proposals are wanted.
    """
    order = sorted(questions.pool["id"], key=lambda key: derive_seed(section.seed, "proposed_questions", key))
    targets, near = questions.only(order[: section.n_proposals]), section.n_examples - 1
    nearest: dict[str, list[str]] = {}
    if near:
        config = TeacherContextsConfig(builder=section.builder, n_demonstrations=near)
        found = BUILDERS[section.builder](ContextRequest(targets, questions, config))
        for key, choices in zip(targets.pool["id"], found, strict=True):
            nearest[key] = [choice.demonstration.id for choice in choices]
    keys = [order[number % len(order)] for number in range(section.n_proposals)]
    return pl.DataFrame(
        {
            "id": [f"proposal-{number:06}" for number in range(section.n_proposals)],
            "examples": [[key, *nearest.get(key, [])] for key in keys],
        },
        schema={"id": pl.String, "examples": pl.List(pl.String)},
    )


def _sample_proposals(task: Task[ProposedQuestionsConfig], drawn: pl.DataFrame, pool: pl.DataFrame) -> None:
    """Let the model write: the examples stand where a teacher's context does, the instruction is the question."""
    section = task.section
    text = {key: render_question(question, options) for key, question, options in _columns(pool)}
    contexts = {
        key: "".join(f"Example\n{text[example]}\n\n" for example in examples) for key, examples in drawn.iter_rows()
    }
    asked = drawn.select(
        "id",
        question=pl.lit(section.instruction),
        options=pl.lit([], pl.List(pl.String)),
        permutation=pl.lit([], pl.List(pl.Int32)),
    )
    asking = Asking(_BARE, section, 1, derive_seed(section.seed, "proposed_questions"), section.batch_tokens)
    sample_shards(task, "proposal_rollouts", asked, asking, contexts)


def _columns(pool: pl.DataFrame) -> list[tuple[str, str, list[str]]]:
    return pool.select("id", "question", "options").rows()


def _read(written: pl.DataFrame, pool: pl.DataFrame) -> tuple[list[dict[str, Any]], pl.DataFrame]:
    """Return a row of the table for each proposal, "new" where it is a question, and the different ones of RAW_POOL."""
    known_of = {key: (domain, bool(options)) for key, domain, options in pool.select("id", "domain", "options").rows()}
    rows: list[dict[str, Any]] = []
    new: dict[str, Question] = {}
    for key, examples, response, finish_reason in written.iter_rows():
        domain, has_options = known_of[examples[0]]
        row = {"proposal": key, "examples": examples, "response": response, "domain": domain, "detail": ""}
        found = read_question(response, domain, has_options)
        if finish_reason != STOP:
            row |= {"state": "unfinished", "detail": finish_reason}
        elif isinstance(found, str):
            row |= {"state": "malformed", "detail": found}
        else:
            repeated = {"state": "repeated", "detail": found.id} if found.id in new else {"state": "new"}
            row |= {"id": found.id, "question": found.question, "options": found.options, **repeated}
            new.setdefault(found.id, found)
        rows.append(row)
    table = pa.Table.from_pylist([each._asdict() | {"source": "proposed"} for each in new.values()], schema=RAW_POOL)
    return rows, pl.DataFrame(table)


def _ask(task: Task[ProposedQuestionsConfig], new: pl.DataFrame) -> pl.DataFrame:
    """Ask the model its own questions, as the pool's were asked, and vote."""
    asking = Asking.of(task.section, task.settings("rollouts", SampledPrompts))
    sample_shards(task, "answer_rollouts", new, asking)
    ballots = sampled_ballots(task.writer.shards("answer_rollouts"), new, load_tokenizer(task.model))
    return answerable(ballots, task.section)


def _write_pool(writer: ArtifactWriter, proposals: pl.DataFrame) -> None:
    accepted = proposals.filter(pl.col("state") == "accepted").unique("id", keep="first", maintain_order=True)
    lines = [
        json.dumps(dict(zip(_FIELDS, row, strict=True)), ensure_ascii=False) for row in accepted.select(_FIELDS).rows()
    ]
    (writer.folder / POOL_FILE).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    counts = proposals["state"].value_counts(sort=True).sort("count", "state", descending=[True, False])
    writer.notes |= {"accepted": len(lines), "states": dict(counts.iter_rows())}
