"""The embedded world: what ships is what the generator makes, and the splits do not leak."""

import random

import pytest

from pipeline.config import PROJECT_ROOT
from pipeline.reference.__main__ import write_questions
from pipeline.reference.model import render_document
from pipeline.reference.world import (
    World,
    WorldConfig,
    in_domain_questions,
    out_of_domain_questions,
    pool_questions,
    worked_example_document,
)

FILES = {"pool": pool_questions, "in_domain_test": in_domain_questions, "out_of_domain_test": out_of_domain_questions}


@pytest.fixture(scope="module")
def world() -> World:
    return World(WorldConfig())


@pytest.mark.parametrize("name", FILES)
def test_shipped_questions_are_the_generators(world, tmp_path, name):
    write_questions(FILES[name](world), tmp_path / f"{name}.jsonl")
    shipped = PROJECT_ROOT / "data" / "reference" / f"{name}.jsonl"
    assert shipped.read_bytes() == (tmp_path / f"{name}.jsonl").read_bytes()


def test_sizes(world):
    assert len(world.pool_items) >= 1000
    assert len(world.test_items) >= 300
    assert len(list(out_of_domain_questions(world))) >= 300


def test_no_fact_stands_on_both_sides_of_the_split(world):
    def facts(items):
        return {
            (
                i.school,
                *(
                    (i.start, i.answer(world.shifts[i.school]))
                    if i.direction == "forward"
                    else (i.answer(world.shifts[i.school]), i.start)
                ),
            )
            for i in items
        }

    assert not facts(world.pool_items) & facts(world.test_items)


def test_the_marked_answer_follows_from_the_rule(world):
    for item, question in zip(world.pool_items, pool_questions(world), strict=True):
        assert len(set(question.options)) == 4
        shift = world.shifts[item.school]
        assert question == world.word(item, shift, random.Random(f"pool-0-{item}"))


def test_loss_is_taken_on_responses_only(world):
    document = worked_example_document(world, random.Random(0), 3)
    text, spans = render_document(document)
    assert [text[a:b].strip() for a, b in spans[:-1]] == [q.response for q in document[:-1]]
    assert text[slice(*spans[-1])] == f"{document[-1].response}<|end|>"
