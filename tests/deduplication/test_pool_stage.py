"""The stage ``pool``: files to decontaminate against, tests split off, what people see."""

import json

import pytest

from pipeline.chain import materialize
from pipeline.deduplication.config import PoolConfig
from pipeline.deduplication.stage import POOL_STAGE
from pipeline.errors import SourceError
from pipeline.model_config import ModelConfig
from pipeline.pool.config import RawPoolConfig
from pipeline.stage import resolve
from pipeline.stages import stage_of

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
def pool(run, tmp_path):
    """Return a function that makes the pool of the rows, by given settings."""
    layout = RawPoolConfig(path=write(tmp_path / "pool.jsonl", ROWS))
    materialize(stage_of("raw_pool"), layout, ModelConfig(), run)
    return lambda **settings: materialize(POOL_STAGE, PoolConfig(**settings), ModelConfig(), run)


def test_by_default_all_questions_pass_in_order(run, pool):
    made, raw = pool().artifact.read(), run.require("raw_pool").read()
    assert made.select(raw.columns).equals(raw)
    assert made["family"].n_unique() == 5


def test_files_are_decontaminated_against_and_part_of_the_fingerprint(run, pool, tmp_path):
    test = write(tmp_path / "test.jsonl", [row | {"question": row["question"].upper()} for row in ROWS[:3]])
    first = pool(decontaminate_against=[test])
    evidence = first.artifact.read("contamination")
    assert set(evidence["id"]) == set(run.require("raw_pool").read()["id"][:3])
    assert set(evidence["evaluation_source"]) == {"test.jsonl:1", "test.jsonl:2", "test.jsonl:3"}
    assert pool(decontaminate_against=[test]).cached
    write(tmp_path / "test.jsonl", ROWS[:1])
    second = pool(decontaminate_against=[test])
    assert second.artifact.manifest.fingerprint != first.artifact.manifest.fingerprint
    assert second.artifact.read("contamination").height == 1


def test_answers_of_files_to_decontaminate_against_are_not_read(pool, tmp_path):
    found = []
    for answer in ("A", "B", "no option"):
        test = write(tmp_path / "test.jsonl", [row | {"answer": answer} for row in ROWS[:3]])
        found.append(pool(decontaminate_against=[test]).artifact.manifest.digest)
    assert len(set(found)) == 1


def test_an_empty_pool_is_an_error(run, pool, tmp_path):
    with pytest.raises(SourceError, match="contaminated 23"):
        pool(decontaminate_against=[write(tmp_path / "test.jsonl", ROWS)])
    assert run.find("pool") is None


def test_a_missing_file_names_the_setting(pool):
    with pytest.raises(SourceError, match=r"^pool\.decontaminate_against: .*missing\.jsonl is not an existing file"):
        pool(decontaminate_against=["missing.jsonl"])


def test_people_see_tables_and_a_plot(pool, tmp_path):
    artifact = pool(decontaminate_against=[write(tmp_path / "test.jsonl", ROWS[:3])]).artifact
    notes = artifact.manifest.notes
    assert {"fate": "kept", "questions": 20} in notes["questions"]
    assert notes["largest stem families"][0]["template"].startswith(("at which temperature melts", "which acid"))
    assert "at which temperature melts …" in {row["template"] for row in notes["largest stem families"]}
    assert artifact.manifest.rows["dropped"] == 3
    assert resolve(POOL_STAGE.plot)(artifact).startswith(b"\x89PNG")
