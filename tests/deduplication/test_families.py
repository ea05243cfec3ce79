"""Stem families: one template is one family, prose is not."""

import polars as pl
import pytest

from pipeline.deduplication.families import stem_families, templates
from pipeline.paths import PROJECT_ROOT
from pipeline.pool.config import RawPoolConfig
from pipeline.pool.ingest import Ingestion

SHARED = PROJECT_ROOT.parent / "shared" / "data" / "sciknoweval"
METALS = "iron gold zinc tin lead nickel cobalt copper silver radium".split()
PROSE = [
    "Why do winter annuals germinate in late summer?",
    "Name the enzyme that unwinds DNA during replication.",
    "How does a catalyst change the activation energy?",
    "Fume hoods protect whom?",
]


def families(questions):
    pool = pl.DataFrame({"id": [f"{i:03}" for i in range(len(questions))], "question": questions})
    return stem_families(pool)


def test_one_template_is_one_family_and_is_named_by_it():
    questions = [f"At which temperature does pure {metal} melt?" for metal in METALS] + PROSE
    found = families(questions)
    assert found["family"].n_unique() == 1 + len(PROSE)
    assert found["template"][0] == "at which temperature does pure … melt"
    assert found["template"][len(METALS)] == "why do winter annuals germinate in late summer"


def test_two_wordings_are_two_families():
    questions = [f"At which temperature does pure {m} melt?" for m in METALS]
    questions += [f"Which colour has a salt of {m} in a flame?" for m in METALS]
    found = families(questions)["family"].to_list()
    assert len(set(found[:10])) == len(set(found[10:])) == 1
    assert found[0] != found[-1]


def test_fillings_by_form_need_no_numbers_of_members():
    found = families(["Is the molecule CC(=O)O soluble in water?", "Is the molecule c1ccccc1 soluble in water?"])
    assert found["family"].n_unique() == 1


def test_repeated_stems_are_no_evidence_of_a_template():
    stem = "why do winter annuals germinate".split()
    assert not any(template.found for template in templates([stem] * 20))


def test_the_order_of_rows_does_not_matter():
    pool = pl.DataFrame(
        {"id": [str(i) for i in range(14)], "question": [f"What does {m} cost?" for m in METALS] + PROSE}
    )
    assert stem_families(pool).equals(stem_families(pool.reverse()))


def test_small_and_empty_pools():
    assert families([]).is_empty()
    assert families(["Why?"])["template"].to_list() == ["why"]


@pytest.mark.skipif(not SHARED.is_dir(), reason="published data sets are not here")
@pytest.mark.parametrize(
    ("name", "n_families"),
    [("reaction_prediction", 10), ("solubility_prediction", 10), ("balancing_chemical_equation", 1)],
)
def test_published_templates(name, n_families):
    section = RawPoolConfig(path=str(SHARED / f"{name}.jsonl"), format="sciknoweval")
    pool = pl.concat([batch.raw_pool for batch in Ingestion(section)])
    assert stem_families(pool)["family"].n_unique() == n_families
