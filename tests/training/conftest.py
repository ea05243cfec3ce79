"""A store with what both objectives train on: six questions with contexts, rollouts and a majority."""

import polars as pl
import pytest

from pipeline.models import encode_chat
from pipeline.schemas import ARTIFACTS

NOTHING = {pl.String: "", pl.Boolean: False, pl.List: []}
RESPONSES = ["red", "green", "yellow", "cyan", "a long and winding colour", "teal"]


def put(store, name, rows):
    """Store an artifact; columns that ``rows`` leave out hold nothing."""
    schema = pl.DataFrame(ARTIFACTS[name][name].empty_table()).schema
    empty = {column: NOTHING.get(kind.base_type(), 0) for column, kind in schema.items()}
    with store.write(name, "f", {}) as writer:
        writer.append(name, pl.DataFrame([empty | row for row in rows], schema=schema))


@pytest.fixture(scope="session")
def fill(tiny):
    """Return a function that stores the questions q0 to q5; sample 1 of each represents the majority."""

    def encode(text):
        return tiny.tokenizer.encode(text, add_special_tokens=False)

    def store_questions(store):
        questions = [(f"q{i}", f"colour {i}?", response) for i, response in enumerate(RESPONSES)]
        context = "Example\nred\nResponse: blue\n\n"
        put(store, "teacher_contexts", [{"id": i, "prompt": p, "privileged_context": context} for i, p, _ in questions])
        put(store, "curated_subset", [{"id": i, "selected": True} for i, _, _ in questions])
        put(store, "pseudo_labels", [{"id": i, "representative": 1} for i, _, _ in questions])
        rollouts = [
            {"id": i, "sample": sample, "prompt_ids": encode_chat(tiny.tokenizer, p), "response_ids": encode(text)}
            for i, p, response in questions
            for sample, text in ((0, "other<|end|>"), (1, f"{response}<|end|>"))
        ]
        put(store, "rollouts", rollouts)

    return store_questions
