"""Planted leaks are found, each with its evaluation question; other fillings, options and short words are no leak."""

import random
from itertools import permutations

import polars as pl
import pytest

from pipeline.deduplication.config import PoolConfig
from pipeline.deduplication.contamination import contaminated
from pipeline.deduplication.schemas import CONTAMINATION
from pipeline.paths import PROJECT_ROOT
from pipeline.pool.config import RawPoolConfig
from pipeline.pool.ingest import Ingestion

SHARED = PROJECT_ROOT.parent / "shared" / "data" / "sciknoweval"
VOCABULARY = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in "rstvz"]


def table(rows, prefix):
    return pl.DataFrame(
        [
            (f"{prefix}{i:04}", question, list(options), f"{prefix}.jsonl:{i + 1}")
            for i, (question, options) in enumerate(rows)
        ],
        schema={"id": pl.String, "question": pl.String, "options": pl.List(pl.String), "source": pl.String},
        orient="row",
    )


def prose(n, seed):
    rng = random.Random(seed)
    return [(" ".join(rng.choices(VOCABULARY, k=20)), rng.choices(VOCABULARY, k=4)) for _ in range(n)]


def edited(text, rng):
    words = text.split(" ")
    places = [i for i, word in enumerate(words) if word.isalpha()]
    for i in rng.sample(places, round(0.15 * len(places))):
        words[i] = rng.choice(VOCABULARY) if rng.random() < 0.5 else ""
    return " ".join(filter(None, words))


def leaks(rows, seed=0):
    rng = random.Random(seed)
    changes = [
        lambda q, o: (q, o),
        lambda q, o: (q.upper(), [x.title() for x in o]),
        lambda q, o: (q, rng.sample(o, len(o))),
        lambda q, o: (edited(q, rng), rng.sample(o, len(o))),
        lambda q, o: (f"Consider this carefully. {q}", o),
    ]
    return [changes[i % len(changes)](*row) for i, row in enumerate(rows)]


def test_every_leak_is_found_with_its_question_and_nothing_else():
    evaluation = prose(60, seed=1)
    pool = table(leaks(evaluation) + prose(200, seed=2), "p")
    evidence = contaminated(pool, table(evaluation, "e"), PoolConfig())
    assert evidence["id"].to_list() == [f"p{i:04}" for i in range(60)]
    assert evidence["evaluation_id"].to_list() == [f"e{i:04}" for i in range(60)]
    assert evidence["evaluation_source"][3] == "e.jsonl:4"
    assert evidence["shared_text"][0] == evaluation[0][0]
    assert evidence["score"].is_between(0.6, 1).all()
    assert evidence.schema == pl.DataFrame(CONTAMINATION.empty_table()).schema


def test_the_order_of_rows_does_not_matter():
    evaluation = table(prose(30, seed=1), "e")
    pool = table(leaks(prose(30, seed=1)) + prose(50, seed=2), "p")
    found = contaminated(pool, evaluation, PoolConfig())
    assert found.equals(contaminated(pool.reverse(), evaluation.reverse(), PoolConfig()))


def test_a_template_with_other_fillings_is_no_leak_and_with_the_same_is():
    def asked(word):
        return f"Which product does the reaction of the substance {word} with an excess of water give?", ["Yes", "No"]

    names = [f"c{i}c=o{i}" for i in range(40)]
    pool = table([asked(name) for name in names[10:]] + [asked(names[0].upper())], "p")
    evidence = contaminated(pool, table([asked(name) for name in names[:10]], "e"), PoolConfig())
    assert evidence.select("id", "evaluation_id").rows() == [("p0030", "e0000")]


def test_fillings_that_are_plain_words_count_and_the_template_does_not():
    def asked(word):
        return f"Which product does the reaction of the substance {word}ite with an excess of water give?", []

    # In a large pool the words of a small template are rare.
    rows = [asked(VOCABULARY[0]), *(asked(name) for name in VOCABULARY[10:20]), *prose(300, seed=3)]
    evidence = contaminated(table(rows, "p"), table([asked(name) for name in VOCABULARY[:10]], "e"), PoolConfig())
    assert evidence.select("id", "evaluation_id").rows() == [("p0000", "e0000")]


def test_every_filling_of_a_template_counts_and_so_does_their_order():
    things = VOCABULARY[:10]
    stems = [
        f"Is the {a} of {b} larger than that of {c}?" for a in VOCABULARY[40:46] for b, c in permutations(things, 2)
    ]
    rows = [(stem, ["Yes", "No"]) for stem in random.Random(0).sample(stems, len(stems))]
    evidence = contaminated(table([*rows[100:], rows[7]], "p"), table(rows[:100], "e"), PoolConfig())
    assert evidence.select("id", "evaluation_id").rows() == [("p0440", "e0007")]


def test_the_embedded_pool_shares_templates_with_its_test_but_no_question():
    folder = PROJECT_ROOT / "data" / "reference"
    pool, test = (
        pl.concat([batch.raw_pool for batch in Ingestion(RawPoolConfig(path=str(folder / name)))])
        for name in ("pool.jsonl", "in_domain_test.jsonl")
    )
    assert contaminated(pool, test, PoolConfig()).height <= 0.01 * pool.height


@pytest.mark.parametrize(("agreeing", "found"), [(5, True), (3, True), (2, False), (0, False)])
def test_more_than_half_of_the_numbers_of_prose_must_agree(agreeing, found):
    text = prose(1, seed=1)[0][0]
    asked = [f"{text} {' '.join(str(i) for i in range(100, 105))}", []]
    changed = [f"{text} {' '.join(str(i if i < 100 + agreeing else i + 50) for i in range(100, 105))}", []]
    evidence = contaminated(table([changed, *prose(200, seed=2)], "p"), table([asked], "e"), PoolConfig())
    assert evidence.height == found


@pytest.mark.parametrize(("agreeing", "found"), [(5, True), (3, True), (2, False)])
def test_more_than_half_of_the_options_must_agree(agreeing, found):
    text = prose(1, seed=1)[0][0]
    asked, changed = VOCABULARY[:5], [*VOCABULARY[:agreeing], *VOCABULARY[50 : 55 - agreeing]]
    pool = table([(text, changed), *prose(200, seed=2)], "p")
    assert contaminated(pool, table([(text, asked)], "e"), PoolConfig()).height == found


@pytest.mark.parametrize(("kept", "found"), [(11, True), (9, False)])
def test_half_of_the_stem_must_agree(kept, found):
    rng = random.Random(0)
    words, others = rng.sample(VOCABULARY[:90], 20), rng.sample(VOCABULARY[90:], 20)
    options = VOCABULARY[90:130]
    pool = table([(" ".join([*words[:kept], *others[kept:]]), options), *prose(200, seed=2)], "p")
    evidence = contaminated(pool, table([(" ".join(words), options)], "e"), PoolConfig())
    assert evidence.height == found


@pytest.mark.parametrize("change", ["not {}", "{} 5"])
def test_a_negation_or_a_number_more_is_no_excuse(change):
    question, options = prose(1, seed=1)[0]
    pool = table([(change.format(question), options), *prose(50, seed=2)], "p")
    assert contaminated(pool, table([(question, options)], "e"), PoolConfig()).height == 1


def test_sets_of_options_of_different_sizes_are_compared_by_the_smaller():
    rng = random.Random(0)
    few = [(" ".join(rng.choices(VOCABULARY, k=5)), rng.sample(VOCABULARY, 4)) for _ in range(30)]
    many = [(question, rng.sample([*options, *rng.sample(VOCABULARY, 6)], 10)) for question, options in few]
    for pool, evaluation in ((few, many), (many, few)):
        table_of_pool = table([*pool, *prose(200, seed=2)], "p")
        assert contaminated(table_of_pool, table(evaluation, "e"), PoolConfig()).height == 30


def test_a_question_inside_a_long_text_is_a_leak():
    evaluation = prose(1, seed=1)
    around = " ".join(f"{word}ly" for word in VOCABULARY[:80])
    pool = table([(f"{around} {evaluation[0][0]}", evaluation[0][1]), *prose(50, seed=2)], "p")
    assert contaminated(pool, table(evaluation, "e"), PoolConfig())["id"].to_list() == ["p0000"]


def test_options_that_say_nothing_need_not_agree():
    evaluation = [(question, ["Yes", "No"]) for question, _ in prose(60, seed=1)]
    pool = table([(evaluation[0][0], ["True", "False"]), *evaluation[30:]], "p")
    evidence = contaminated(pool, table(evaluation[:30], "e"), PoolConfig())
    assert evidence.select("id", "option_overlap").rows() == [("p0000", None)]


def test_a_shared_passage_with_another_question_is_no_leak():
    passage = " ".join(f"{word} told" for word in VOCABULARY[:60])
    evaluation = table([(f"{passage} who won", VOCABULARY[100:104])], "e")
    pool = table([(f"{passage} why so", VOCABULARY[110:114]), *prose(50, seed=3)], "p")
    assert contaminated(pool, evaluation, PoolConfig()).is_empty()


def test_a_word_or_two_are_no_leak_of_a_longer_question():
    pool = table([("Why is spilled mercury collected with sulfur at once?", ["Yes", "No"]), *prose(50, seed=3)], "p")
    evaluation = table([("Mercury", ["Yes", "No"])], "e")
    assert contaminated(pool, evaluation, PoolConfig()).is_empty()
    assert (
        contaminated(table([("MERCURY", ["No", "Yes"]), *prose(50, seed=3)], "p"), evaluation, PoolConfig()).height == 1
    )


def test_repeating_a_leak_does_not_turn_it_into_a_template():
    evaluation = prose(1, seed=1)
    pool = table(evaluation * 20 + prose(50, seed=2), "p")
    assert contaminated(pool, table(evaluation, "e"), PoolConfig()).height == 20


def published(name):
    section = RawPoolConfig(path=str(SHARED / f"{name}.jsonl"), format="sciknoweval")
    rows = pl.concat([batch.raw_pool for batch in Ingestion(section)]).sort("id")
    return rows.select("question", "options").sample(fraction=1, shuffle=True, seed=1).rows()


@pytest.mark.skipif(not SHARED.is_dir(), reason="published data sets are not here")
@pytest.mark.parametrize("name", ["reaction_prediction", "biological_detailed_understanding", "chemical_literature_QA"])
def test_precision_and_recall_on_published_questions(name):
    rows = published(name)[:800]
    evaluation, clean = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    pool = table([*leaks(evaluation[:150]), *clean], "p")
    found = contaminated(pool, table(evaluation, "e"), PoolConfig())["id"].to_list()
    right = sum(i < "p0150" for i in found)
    assert right >= 0.95 * 150
    assert right >= 0.95 * len(found)


@pytest.mark.skipif(not SHARED.is_dir(), reason="published data sets are not here")
def test_false_alarms_on_published_templates():
    rows = published("reaction_prediction")
    evidence = contaminated(table(rows[:200], "p"), table(rows[200:], "e"), PoolConfig())
    assert evidence.height <= 0.05 * 200
