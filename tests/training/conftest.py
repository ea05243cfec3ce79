"""What objectives train on: six questions with contexts, rollouts, answers and a majority."""

import multiprocessing

import polars as pl
import pyarrow.parquet as pq
import pytest
import torch

from pipeline.adapters.job import TrainingJob, write_job
from pipeline.answers.schemas import ANSWERS
from pipeline.deduplication.schemas import POOL
from pipeline.model_config import ModelConfig
from pipeline.models import encode_chat, load_model
from pipeline.pool.schemas import GOLD_LABELS
from pipeline.rollouts.schemas import ROLLOUTS
from pipeline.selection.schemas import CURATED_SUBSET
from pipeline.table import conform
from pipeline.teacher.schemas import TEACHER_CONTEXTS
from pipeline.votes.schemas import PSEUDO_LABELS
from training.objectives import OBJECTIVES

NOTHING = {pl.String: "", pl.Boolean: False, pl.List: []}
RESPONSES = ["red", "green", "yellow", "cyan", "a long and winding colour", "teal"]
STAGE = {
    "opsd": "distilled_adapter",
    "opsd_majority": "rival_adapter",
    "u_opsd": "rival_adapter",
    "sft": "rival_adapter",
    "grpo": "rival_adapter",
    "gold_context": "ceiling_adapter",
}


def put(path, schema, rows):
    """Write a table; columns that ``rows`` leave out hold nothing."""
    kinds = pl.DataFrame(schema.empty_table()).schema
    empty = {column: NOTHING.get(kind.base_type(), 0) for column, kind in kinds.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(conform(pl.DataFrame([empty | row for row in rows], schema=kinds), schema, where=str(path)), path)


@pytest.fixture(scope="session")
def fill(tiny):
    """Return a function that writes the questions q0 to q5; sample 1 of each represents the majority.

    It returns the folder of each artifact. The rollouts stand in two shards.
    """

    def encode(text):
        return tiny.tokenizer.encode(text, add_special_tokens=False)

    def write_questions(root):
        questions = [(f"q{i}", f"colour {i}?", response) for i, response in enumerate(RESPONSES)]
        context = "Example\nred\nResponse: blue\n\n"
        contexts = [{"id": i, "prompt": p, "privileged_context": context} for i, p, _ in questions]
        rollouts = [
            {
                "id": i,
                "sample": sample,
                "prompt": p,
                "prompt_ids": encode_chat(tiny.tokenizer, p),
                "permutation": [1, 0],
                "response": text,
                "response_ids": encode(f"{text}<|end|>"),
                "finish_reason": "stop",
            }
            for i, p, response in questions
            for sample, text in ((0, "other"), (1, response))
        ]
        inputs = {
            name: root / name / "0"
            for name in (
                *("teacher_contexts", "curated_subset", "pseudo_labels", "rollouts", "answers", "pool", "gold_labels"),
            )
        }
        gold = [{"id": i, "gold_answer": response} for i, _, response in questions]
        put(inputs["gold_labels"] / "gold_labels.parquet", GOLD_LABELS, gold)
        put(inputs["teacher_contexts"] / "teacher_contexts.parquet", TEACHER_CONTEXTS, contexts)
        put(
            inputs["curated_subset"] / "curated_subset.parquet",
            CURATED_SUBSET,
            [{"id": i, "selected": True} for i, _, _ in questions],
        )
        put(
            inputs["pseudo_labels"] / "pseudo_labels.parquet",
            PSEUDO_LABELS,
            [
                {"id": i, "representative": 1, "pseudo_answer": response, "pseudo_index": None, "vote_share": 0.5}
                for i, _, response in questions
            ],
        )
        put(
            inputs["answers"] / "answers.parquet",
            ANSWERS,
            [
                {"id": row["id"], "sample": row["sample"], "answer": row["response"], "answer_index": None}
                for row in rollouts
            ],
        )
        put(
            inputs["pool"] / "pool.parquet",
            POOL,
            [{"id": i, "question": p, "options": ["red", "blue"]} for i, p, _ in questions],
        )
        for shard in (0, 1):
            path = inputs["rollouts"] / "rollouts.parquet" / f"shard-{shard:05}.parquet"
            put(path, ROLLOUTS, rollouts[shard::2])
        return inputs

    return write_questions


@pytest.fixture(scope="session")
def job_for():
    """Return a function that makes a job of an objective; what it is not given is of no account."""

    def make(objective, output, settings, **changes):
        given = {"stage": STAGE[objective], "model": ModelConfig(), "inputs": {}, "lineage": {}, "fingerprint": ""}
        return TrainingJob(
            objective=objective, output=output, settings=settings.model_dump(mode="json"), **given | changes
        )

    return make


PROGRAM = """
import os, sys
from training.run import main

for number, name in ((1, "stdout"), (2, "stderr")):
    os.dup2(os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
sys.exit(main(["--job", f"{folder}/job.json"]))
"""


@pytest.fixture(scope="session")
def start():
    """Return a function that starts the program on a job; one process has imported all that it needs before.

    What the program says is left in files beside its output. All such processes have one hash seed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training.run", *OBJECTIVES.values()])

    def start_process(job):
        folder = job.output.parent
        write_job(job, folder / "job.json")
        process = context.Process(target=exec, args=(PROGRAM, {"folder": str(folder)}))
        process.start()
        return process

    return start_process


@pytest.fixture(scope="session")
def talker_folder(tiny_folder, tmp_path_factory):
    """Return the folder of a model that answers the questions q0 to q5 with A or B, each about half of the time."""
    language_model = load_model(ModelConfig(path=str(tiny_folder)))
    model, tokenizer = language_model.model, language_model.tokenizer
    examples = []
    for i in range(len(RESPONSES)):
        prompt = encode_chat(tokenizer, f"colour {i}?")
        examples += [
            (prompt, prompt + tokenizer.encode(f"{letter}<|end|>", add_special_tokens=False)) for letter in "AB"
        ]
    ids = torch.tensor([example for _, example in examples])  # all as long
    labels = ids.clone()
    labels[:, : len(examples[0][0])] = -100
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("talker")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
