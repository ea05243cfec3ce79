"""The stage ``tests``: files or what was split off the pool, gold apart from questions, and leaks refused."""

import json

import pytest

from pipeline.chain import materialize
from pipeline.config import Config
from pipeline.errors import SourceError
from pipeline.held_out.stage import TESTS_STAGE
from pipeline.model_config import ModelConfig
from pipeline.stages import stage_of

SPLITS = ("in_domain", "out_of_domain")
ROWS = [
    {"question": f"{stem} {name}?", "options": [f"{name} {x}" for x in "abcd"], "answer": "B", "domain": domain}
    for domain, stem in (("physics", "At which temperature melts"), ("chemistry", "Which acid attacks the metal"))
    for name in "iron gold zinc tin lead".split()
] + [
    {"question": question, "options": ["one", "two"], "answer": "A", "domain": "physics"}
    for question in ("Who weighed the earth first?", "How fast is light in glass?", "Why is the sky blue at noon?")
]
HELD_OUT = [
    {"question": f"{stem}?", "options": [f"{stem} {x}" for x in "ab"], "answer": "A", "domain": "law"}
    for stem in ("Who signs treaties", "May courts refuse a case", "When does a contract end")
]
MISSING = {"in_domain_path": "missing.jsonl", "out_of_domain_path": "missing.csv"}


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return str(path)


@pytest.fixture
def tests_of(run, tmp_path):
    """Return a function that makes pool and tests, by given settings of both."""

    def make(pool, **settings):
        source = write(tmp_path / "pool.jsonl", ROWS)
        config = Config(raw_pool={"path": source}, pool=pool, tests=settings)
        for name in ("raw_pool", "pool"):
            materialize(stage_of(name), getattr(config, name), ModelConfig(), run)
        return materialize(TESTS_STAGE, config.tests, ModelConfig(), run)

    return make


def test_tests_are_read_from_files_their_gold_apart(tests_of, tmp_path):
    paths = [write(tmp_path / f"{name}.jsonl", rows) for name, rows in (("a", HELD_OUT[:2]), ("b", HELD_OUT[2:]))]
    outcome = tests_of({}, in_domain_path=paths[0], out_of_domain_path=paths[1])
    assert list(outcome.artifacts) == ["tests", "test_labels"]
    questions, labels = outcome.artifacts.values()
    for split, rows in zip(SPLITS, (HELD_OUT[:2], HELD_OUT[2:]), strict=True):
        assert questions.read(split)["question"].to_list() == [row["question"] for row in rows]
        assert labels.read(split)["id"].equals(questions.read(split)["id"])
        assert labels.read(split)["gold_answer"].to_list() == [row["options"][0] for row in rows]


def test_the_answers_of_a_test_change_its_labels_alone(tests_of, tmp_path):
    digests = []
    for answer in ("A", "B", "no option"):
        path = write(tmp_path / "test.jsonl", [row | {"answer": answer} for row in HELD_OUT])
        outcome = tests_of({}, in_domain_path=path, out_of_domain_path=None)
        assert not outcome.cached
        digests.append([artifact.manifest.digest for artifact in outcome.artifacts.values()])
    questions, labels = (set(column) for column in zip(*digests, strict=True))
    assert (len(questions), len(labels)) == (1, 3)


def test_a_test_split_off_takes_the_place_of_a_file(run, tests_of):
    """Its file is not even looked for, and its gold stays with that of the pool."""
    outcome = tests_of({"in_domain_share": 0.2, "out_of_domain": ["chemistry"]}, **MISSING)
    pool, gold = run.require("pool"), set(run.require("gold_labels").read()["id"])
    questions, labels = outcome.artifacts.values()
    for split in SPLITS:
        held_out = questions.read(split)
        assert held_out.equals(pool.read(f"{split}_test"))
        assert not held_out.is_empty()
        assert set(held_out["id"]) <= gold - set(pool.read()["id"])
        assert labels.read(split).is_empty()
    assert len(questions.read("out_of_domain")) == 5


def test_only_the_file_that_a_split_replaces_may_be_missing(tests_of, tmp_path):
    with pytest.raises(SourceError, match=r"^tests\.out_of_domain_path: .*missing\.csv is not an existing file"):
        tests_of({"in_domain_share": 0.2}, **MISSING)
    with pytest.raises(SourceError, match=r"^tests\.in_domain_path: .*missing\.jsonl is not an existing file"):
        tests_of({"out_of_domain": ["chemistry"]}, **MISSING)
    path = write(tmp_path / "test.jsonl", HELD_OUT)
    questions = tests_of({"in_domain_share": 0.2}, in_domain_path="missing.jsonl", out_of_domain_path=path).artifact
    assert questions.read("out_of_domain")["question"].to_list() == [row["question"] for row in HELD_OUT]


def test_no_out_of_domain_test_is_an_empty_one(tests_of, tmp_path):
    path = write(tmp_path / "test.jsonl", HELD_OUT)
    outcome = tests_of({}, in_domain_path=path, out_of_domain_path=None)
    assert [artifact.read("out_of_domain").height for artifact in outcome.artifacts.values()] == [0, 0]


@pytest.mark.parametrize("pool", [{}, {"in_domain_share": 0.3}])
def test_a_limit_holds_for_files_and_splits(tests_of, tmp_path, pool):
    path = write(tmp_path / "test.jsonl", HELD_OUT)
    questions = tests_of(pool, in_domain_path=path, out_of_domain_path=path, limit=2).artifact
    assert questions.manifest.rows == {"in_domain": 2, "out_of_domain": 2}


def test_a_limit_draws_from_the_whole_test_whatever_its_order(tests_of, tmp_path):
    rows = [HELD_OUT[0] | {"question": f"Who signs treaty {number}?"} for number in range(200)]

    def drawn(rows):
        path = write(tmp_path / "test.jsonl", rows)
        outcome = tests_of({}, in_domain_path=path, out_of_domain_path=None, limit=40)
        return outcome.artifact.read("in_domain")["question"].to_list()

    numbers = [int(question.split()[-1][:-1]) for question in drawn(rows)]
    assert len(numbers) == 40
    assert numbers == sorted(numbers)
    assert all(sum(start <= number < start + 100 for number in numbers) >= 5 for start in (0, 100))
    assert sorted(drawn(rows[::-1])) == sorted(drawn(rows))


@pytest.mark.parametrize("split", SPLITS)
def test_a_leak_names_the_setting(run, tests_of, tmp_path, split):
    paths = {f"{name}_path": write(tmp_path / f"{name}.jsonl", HELD_OUT) for name in SPLITS}
    write(tmp_path / f"{split}.jsonl", [HELD_OUT[0], ROWS[3]])
    with pytest.raises(
        SourceError, match=rf"^tests\.{split}_path: 1 test questions stand in the pool.*{split}\.jsonl:2"
    ):
        tests_of({}, **paths)
    assert run.find("tests") is None
    tests_of({"decontaminate_against": [paths[f"{split}_path"]]}, **paths)


def test_files_are_part_of_the_fingerprint(tests_of, tmp_path):
    path = write(tmp_path / "test.jsonl", HELD_OUT)
    settings = {"in_domain_path": path, "out_of_domain_path": None}
    tests_of({}, **settings)
    assert tests_of({}, **settings).cached
    write(tmp_path / "test.jsonl", HELD_OUT[:2])
    assert tests_of({}, **settings).artifact.manifest.rows["in_domain"] == 2


def test_a_file_in_another_layout_names_the_setting(tests_of, tmp_path):
    wrong = write(tmp_path / "wrong.jsonl", [{"stem": "a"}])
    with pytest.raises(SourceError, match=r"^tests\.in_domain_path: .*no column 'question'"):
        tests_of({}, in_domain_path=wrong, out_of_domain_path=None)
