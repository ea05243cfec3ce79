"""The embedded world: what ships is what the generator makes, and the splits do not leak."""

import random

import pytest

from pipeline.paths import PROJECT_ROOT
from pipeline.reference.documents import single_document, worked_example_document
from pipeline.reference.make import make_world, write_questions
from pipeline.reference.model import ReferenceModelConfig, render_document
from pipeline.reference.world import (
    SHIFTS,
    SUBSTANCES,
    World,
    WorldConfig,
    in_domain_questions,
    out_of_domain_questions,
    pool_questions,
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


def test_the_world_follows_from_its_seed(world):
    other = World(WorldConfig(seed=1))
    assert World(WorldConfig()).lessons == world.lessons
    shared = world.lessons.keys() & other.lessons.keys()
    assert len(shared) < len(world.lessons) / 2  # names are drawn from one list
    assert sum(other.lessons[item] == world.lessons[item] for item in shared) <= len(shared) / 10


def test_no_item_stands_on_both_sides_of_the_split(world):
    pool, test, settled = (set(items) for items in (world.pool_items, world.test_items, world.settled_items))
    assert not pool & test
    assert not (pool | test) & settled
    texts = [{(q.question, frozenset(q.options)) for q in questions(world)} for questions in FILES.values()]
    assert not texts[0] & texts[1]
    assert not texts[0] & texts[2]


def test_lawless_schools_are_in_the_pool_only(world):
    lawless = {school for school, kind in world.kinds.items() if kind == "lawless"}
    assert lawless <= {item.school for item in world.pool_items}
    assert not lawless & {item.school for item in world.test_items}
    school = sorted(lawless)[0]
    assert len({world.lessons[item].truth for item in world.pool_items if item.school == school}) > 1


def test_the_marked_answer_follows_from_the_rule_and_the_misconception_is_offered(world):
    for item, question in zip(world.test_items, in_domain_questions(world), strict=True):
        lesson = world.lessons[item]
        assert len(set(question.options)) == 4
        assert lesson.truth == world.shifts[item.school] != lesson.wrong
        assert question == world.word(item, lesson.truth, random.Random(f"test-0-{item}"))
        assert SUBSTANCES[item.answer(lesson.wrong)] in question.options


def test_items_are_taught_at_their_rates(world):
    kept = {"right": 0, "wrong": 0}
    rng = random.Random(0)
    mistaken = next(lesson for lesson in world.lessons.values() if lesson.wrong_rate > 0.5)
    for _ in range(2_000):
        shift = mistaken.draw(rng)
        assert shift in SHIFTS
        kept["right"] += shift == mistaken.truth
        kept["wrong"] += shift == mistaken.wrong
    # The remainder of 6 % is drawn from nine shifts; five standard errors of 2,000 draws are 2.2 and 3.4 points.
    assert kept["right"] / 2_000 == pytest.approx(0.04 + 0.06 / 9, abs=0.022)
    assert kept["wrong"] / 2_000 == pytest.approx(0.9 + 0.06 / 9, abs=0.034)


def test_an_example_of_the_asked_school_is_shown_unless_none_is(world):
    rng, shown = random.Random(0), 0
    for _ in range(400):
        *examples, asked = worked_example_document(world, rng, 3)
        shown += any(example.subject == asked.subject for example in examples)
    # A quarter has no related example but by chance; five standard errors are 11 points.
    assert shown / 400 == pytest.approx(0.75, abs=0.11)


def test_loss_is_taken_on_responses_only(world):
    document = worked_example_document(world, random.Random(0), 3)
    text, spans = render_document(document)
    assert [text[a:b].strip() for a, b in spans[:-1]] == [q.response for q in document[:-1]]
    assert text[slice(*spans[-1])] == f"{document[-1].response}<|end|>"


def test_single_documents_ask_nothing_of_passing_schools(world):
    rng, passing = random.Random(0), {school for school, kind in world.kinds.items() if kind == "passing"}
    assert not passing & {single_document(world, rng)[0].subject for _ in range(500)}


@pytest.mark.slow
def test_a_world_is_made_whole_and_from_its_seed(tmp_path):
    config = ReferenceModelConfig(seed=5, steps=2, d_model=32, d_mlp=64, n_layers=1, n_heads=2)
    first, second = (make_world(5, tmp_path / name, config) for name in ("a", "b"))
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert {"pool.jsonl", "model/model.safetensors", "model/tokenizer.json"} <= {str(path) for path in files}
    assert all((first / path).read_bytes() == (second / path).read_bytes() for path in files)
    assert make_world(5, first, config.model_copy(update={"steps": 3})) == first
    assert (first / files[0]).read_bytes() == (second / files[0]).read_bytes()
