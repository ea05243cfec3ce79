"""The factual pool: what ships is what the generator makes, its tables are consistent, and nothing leaks."""

import subprocess
import sys
from collections import Counter

import pytest

from pipeline.chain import materialize
from pipeline.deduplication.config import PoolConfig
from pipeline.deduplication.stage import POOL_STAGE
from pipeline.facts.questions import GENETIC_CODE, OUT_OF_DOMAIN, make_questions, relations
from pipeline.model_config import ModelConfig
from pipeline.paths import PROJECT_ROOT
from pipeline.pool.config import RawPoolConfig
from pipeline.prompts import LETTERS
from pipeline.stages import stage_of

LEAST = {"pool": 400, "in_domain_test": 150, "out_of_domain_test": 100}
FOLDER = PROJECT_ROOT / "data" / "facts"


@pytest.fixture(scope="module")
def tables():
    return {relation.relation: relation.facts for relation in relations()}


@pytest.fixture(scope="module")
def files():
    return make_questions()


def fact_of(question):
    """Return thing and value that a question asks about, whichever way it does, and which of them it is about."""
    (relation,) = (relation for relation in relations() if relation.relation == question.task)
    ((thing, value),) = (fact for fact in relation.facts.items() if question.question in asked(relation, *fact))
    return thing, value, thing if relation.about == "thing" else value


def asked(relation, thing, value):
    return {text.format(thing=thing, value=value) for text in (relation.forward, relation.reverse) if text}


def test_shipped_questions_are_the_generators(tmp_path):
    subprocess.run([sys.executable, "-m", "pipeline.facts", "--out", str(tmp_path)], cwd=PROJECT_ROOT, check=True)
    for name, least in LEAST.items():
        shipped = (FOLDER / f"{name}.jsonl").read_bytes()
        assert shipped == (tmp_path / f"{name}.jsonl").read_bytes()
        assert len(shipped.splitlines()) >= least


def test_the_tables_are_consistent(tables):
    symbols, numbers, names = tables["element_symbol"], tables["atomic_number"], tables["amino_acid_letter"]
    assert len(symbols) == len(set(symbols.values())) == 118
    at = {symbol: number for number, symbol in enumerate(symbols.values(), start=1)}
    known = {"H": 1, "Ne": 10, "Ca": 20, "Fe": 26, "Kr": 36, "Ag": 47, "Xe": 54, "Gd": 64, "Au": 79, "Rn": 86, "U": 92}
    assert known.items() <= at.items()
    assert (numbers["hydrogen"], numbers["iron"]) == ("1", "26")
    assert len(GENETIC_CODE) == 64
    assert {codon for codon, letter in GENETIC_CODE.items() if letter == "*"} == {"UAA", "UAG", "UGA"}
    degeneracy = Counter(letter for letter in GENETIC_CODE.values() if letter != "*")
    assert sorted(degeneracy.values()) == [1] * 2 + [2] * 9 + [3] + [4] * 5 + [6] * 3
    assert (GENETIC_CODE["AUG"], GENETIC_CODE["UGG"], GENETIC_CODE["AAA"], GENETIC_CODE["GGC"]) == tuple("MWKG")
    assert names.keys() == degeneracy.keys()
    assert set(names.values()) == tables["amino_acid_abbreviation"].keys()
    assert set(tables["unit_symbol"].values()) == set(tables["unit"].values()) - {"siemens"}
    exponents = [int(power.removeprefix("10^")) for power in tables["prefix"].values()]
    assert exponents == sorted(exponents, reverse=True)


def test_what_can_be_asked_both_ways_has_one_answer_each_way():
    for relation in relations():
        if relation.reverse:
            assert len(set(relation.facts.values())) == len(relation.facts), relation.relation
        else:
            assert "reverse" not in relation.open


def test_the_marked_answer_is_the_fact_and_stands_once(files):
    for questions in files.values():
        for question in questions:
            *answers, _ = fact_of(question)
            if question.options:
                assert len(set(question.options)) == 4
                assert question.options[LETTERS.index(question.answer)] in answers
                assert not {option.casefold() for option in question.options} & set("abcd")
            else:
                assert question.answer in answers
        places = Counter(question.answer for question in questions if question.options)
        assert max(places.values()) - min(places.values()) <= 1


def test_all_that_is_asked_about_one_thing_is_on_one_side(files):
    things = {name: {fact_of(question)[2] for question in files[name]} for name in LEAST}
    assert not things["pool"] & things["in_domain_test"]
    assert {q.domain for q in files["out_of_domain_test"]} == {OUT_OF_DOMAIN}
    assert OUT_OF_DOMAIN not in {q.domain for name in ("pool", "in_domain_test") for q in files[name]}
    texts = Counter(question.question for questions in files.values() for question in questions)
    assert max(texts.values()) == 1


def test_the_pipeline_finds_no_leak_and_no_near_duplicate(run):
    layout = RawPoolConfig(path=str(FOLDER / "pool.jsonl"))
    raw = materialize(stage_of("raw_pool"), layout, ModelConfig(), run).artifact
    against = [str(FOLDER / f"{name}.jsonl") for name in LEAST if name != "pool"]
    made = materialize(POOL_STAGE, PoolConfig(decontaminate_against=against), ModelConfig(), run).artifact
    n_rows = len((FOLDER / "pool.jsonl").read_text(encoding="utf-8").splitlines())
    assert raw.manifest.rows["raw_pool"] == made.manifest.rows["pool"] == n_rows
