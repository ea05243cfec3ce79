"""The stage ``pool`` against a store: files to decontaminate against, tests split off, what people see."""

import json

import pytest

from assets.publish import publish
from pipeline.artifacts import ArtifactStore
from pipeline.chain import check_tests, pool, raw_pool
from pipeline.deduplication.config import PoolConfig
from pipeline.errors import SourceError
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.evaluate import read_tests
from pipeline.pool.config import RawPoolConfig

METALS = "iron gold zinc tin lead nickel cobalt copper silver radium".split()
ROWS = [
    {"question": f"{wording} {metal}?", "options": [f"{metal} {x}" for x in "abcd"], "answer": "B", "domain": domain}
    for wording, domain in (("At which temperature melts", "physics"), ("Which acid attacks the metal", "chemistry"))
    for metal in METALS
] + [
    {"question": question, "options": ["one", "two"], "answer": "A", "domain": "physics"}
    for question in (
        "Who weighed the earth first?",
        "How fast does light travel in glass?",
        "Why is the sky blue at noon?",
    )
]


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return str(path)


@pytest.fixture
def store(tmp_path):
    store = ArtifactStore(tmp_path / "run")
    raw_pool(store, RawPoolConfig(path=write(tmp_path / "pool.jsonl", ROWS)))
    return store


def test_by_default_all_questions_pass_in_order(store):
    pool(store, PoolConfig())
    raw = store.read("raw_pool")
    assert store.read("pool").select(raw.columns).equals(raw)
    assert store.read("pool")["family"].n_unique() == 5


def test_files_are_decontaminated_against_and_part_of_the_fingerprint(store, tmp_path):
    test = write(tmp_path / "test.jsonl", [row | {"question": row["question"].upper()} for row in ROWS[:3]])
    section = PoolConfig(decontaminate_against=[test])
    first = pool(store, section)
    evidence = store.read("pool", "contamination")
    assert set(evidence["id"]) == set(store.read("raw_pool")["id"][:3])
    assert set(evidence["evaluation_source"]) == {"test.jsonl:1", "test.jsonl:2", "test.jsonl:3"}
    assert pool(store, section).cached
    write(tmp_path / "test.jsonl", ROWS[:1])
    assert pool(store, section).manifest.fingerprint != first.manifest.fingerprint


def test_an_empty_pool_is_an_error(store, tmp_path):
    with pytest.raises(SourceError, match="contaminated 23"):
        pool(store, PoolConfig(decontaminate_against=[write(tmp_path / "test.jsonl", ROWS)]))


def test_evaluation_takes_the_tests_that_were_split_off(store):
    pool(store, PoolConfig(in_domain_share=0.2, out_of_domain=["chemistry"]))
    tests = read_tests(store, EvaluationConfig(in_domain_path="missing", out_of_domain_path=None))
    assert set(tests) == {"in_domain", "out_of_domain"}
    kept = set(store.read("pool")["id"])
    for questions, gold in tests.values():
        assert set(questions["id"]) == set(gold["id"])
        assert not kept & set(questions["id"])
    assert len(tests["out_of_domain"][0]) == 10


def test_tests_are_checked_before_training_but_not_where_a_split_takes_their_place(store, tmp_path):
    missing = EvaluationConfig(in_domain_path="missing.jsonl", out_of_domain_path="missing.csv")
    pool(store, PoolConfig(in_domain_share=0.2, out_of_domain=["chemistry"]))
    check_tests(store, missing)
    pool(store, PoolConfig(in_domain_share=0.2))
    with pytest.raises(SourceError, match=r"evaluation\.out_of_domain_path: missing\.csv is not an existing file"):
        check_tests(store, missing)
    wrong = write(tmp_path / "wrong.jsonl", [{"stem": "a"}])
    pool(store, PoolConfig())
    with pytest.raises(SourceError, match=r"evaluation\.in_domain_path: .*no column 'question'"):
        check_tests(store, EvaluationConfig(in_domain_path=wrong, out_of_domain_path=None))


def test_a_leak_names_the_setting(store, tmp_path):
    pool(store, PoolConfig())
    test = write(tmp_path / "test.jsonl", ROWS[:1])
    with pytest.raises(SourceError, match=r"^evaluation\.in_domain_path: 1 test questions stand in the pool"):
        read_tests(store, EvaluationConfig(in_domain_path=test, out_of_domain_path=None))


def test_people_see_tables_and_a_plot(store, tmp_path):
    outcome = pool(store, PoolConfig(decontaminate_against=[write(tmp_path / "test.jsonl", ROWS[:3])]))
    metadata = publish(store, "pool", outcome).metadata
    assert "| kept | 20 |" in metadata["questions"].value
    assert "at which temperature melts …" in metadata["largest stem families"].value
    assert "data:image/png" in metadata["plot"].value
    assert metadata["rows/dropped"] == 3
