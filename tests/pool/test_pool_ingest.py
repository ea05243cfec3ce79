"""Ingestion: every row is kept or has a reason, and no answer ever touches the pool."""

import hashlib
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ArtifactError, SourceError
from pipeline.paths import PROJECT_ROOT
from pipeline.pool import ingest
from pipeline.pool.config import RawPoolConfig
from pipeline.pool.ingest import Batch, IngestCounts, Ingestion, check_counts
from pipeline.pool.question import content_id
from pipeline.pool.schemas import GOLD_LABELS, QUARANTINE, RAW_POOL
from pipeline.table import conform

SHARED = PROJECT_ROOT.parent / "shared" / "data"
GOOD = {"question": "Which?", "options": ["red", "blue"], "answer": "B", "domain": "rocks"}


def run(path: Path, **changes: Any) -> tuple[Batch, IngestCounts]:
    """Ingest a whole file and check every batch against its schemas and the counts against the tables."""
    ingestion = Ingestion(RawPoolConfig(path=str(path), **changes))
    batches = list(ingestion)
    whole = Batch(
        pl.concat([batch.raw_pool for batch in batches]),
        pl.concat([batch.gold_labels for batch in batches]),
        pl.concat([batch.quarantine for batch in batches]),
    )
    conform(whole.raw_pool, RAW_POOL, "raw_pool")
    conform(whole.gold_labels, GOLD_LABELS, "gold_labels")
    conform(whole.quarantine, QUARANTINE, "quarantine")
    counts = ingestion.counts
    assert counts.read == counts.kept + counts.quarantined.total()
    assert (counts.kept, counts.gold) == (whole.raw_pool.height, whole.gold_labels.height)
    assert whole.raw_pool["id"].is_unique().all()
    assert set(whole.gold_labels["id"]) <= set(whole.raw_pool["id"])
    return whole, counts


def jsonl(folder: Path, rows: list[Any]) -> Path:
    path = folder / "pool.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_kept_row_is_clean(tmp_path: Path) -> None:
    row = {"question": "  Cafe\u0301? ", "options": [" 1.5", 2], "answer": "B", "domain": "d"}
    whole, _ = run(jsonl(tmp_path, [row, {"question": "Open?"}]))
    first, second = whole.raw_pool.to_dicts()
    assert (first["question"], first["options"], first["domain"]) == ("Caf\u00e9?", ["1.5", "2"], "d")
    assert first["permutation"] == [0, 1]
    assert (second["options"], second["domain"], second["permutation"]) == ([], "", [])
    assert whole.gold_labels.rows() == [(first["id"], "2", 1)]


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("missing_question", {"question": None}),
        ("missing_question", {"question": "  "}),
        ("missing_question", {"question": 5}),
        ("bad_options", {"options": "A or B"}),
        ("bad_options", {"options": ["a", " "]}),
        ("bad_options", {"options": ["a", None]}),
        ("bad_options", {"options": ["a b", " a  b"]}),
        ("bad_options", {"options": [True, False]}),
        ("too_few_options", {"options": ["a"]}),
        ("too_many_options", {"options": list(range(27))}),
        ("too_long", {"question": "x" * 200_000}),
        ("too_long", {"options": ["x" * 10_000, "y" * 10_000]}),
        ("control_characters", {"question": "a\x00b"}),
        ("control_characters", {"options": ["\x08xyz", "alpha"]}),
        ("invalid_utf8", {"question": "\ud800"}),
        ("duplicate", {"question": "WHICH ?".replace(" ", ""), "options": ["blue", " red"]}),
    ],
)
def test_bad_row_is_quarantined_with_its_reason(tmp_path: Path, reason: str, change: dict[str, Any]) -> None:
    bad = GOOD | change
    whole, counts = run(jsonl(tmp_path, [GOOD, bad]))
    assert whole.raw_pool["question"].to_list() == ["Which?"]
    refused = whole.quarantine.row(0, named=True)
    assert (refused["source"], refused["line"], refused["reason"]) == ("pool.jsonl", 2, reason)
    assert refused["raw"] == json.dumps(bad)[: ingest.MAX_RAW_CHARS]
    assert "\n" not in refused["detail"]
    assert counts.first_refusal.startswith(f"pool.jsonl:2 {reason}")
    assert reason != "duplicate" or "pool.jsonl:1" in refused["detail"]


@pytest.mark.parametrize("column", ["options", "choices"])
def test_options_under_another_name_are_no_open_question(tmp_path: Path, column: str) -> None:
    other = {"options": "choices", "choices": "options"}[column]
    named = {"question": "Which?", column: ["red", "blue"]}
    bare, answered = ({"question": q, other: ["red", "blue"]} | more for q, more in (("a", {}), ("b", {"answer": "B"})))
    whole, _ = run(jsonl(tmp_path, [named, bare, answered]), options_column=column)
    assert whole.raw_pool["question"].to_list() == ["Which?"]
    assert whole.quarantine["reason"].to_list() == ["bad_options"] * 2
    assert whole.quarantine["detail"].str.contains(f"'{other}'.*'{column}'.*raw_pool.options_column").all()
    assert len(run(jsonl(tmp_path, [named, bare, answered]), options_column=None)[0].raw_pool) == 3


def test_most_and_fewest_options_are_kept(tmp_path: Path) -> None:
    rows = [GOOD | {"options": list(range(26))}, GOOD | {"options": ["Bb", "bb"]}, GOOD | {"options": []}]
    assert run(jsonl(tmp_path, rows))[0].quarantine.is_empty()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Name C1CCCCC1.", "Name c1ccccc1.", False),
        ("Is C=O an acid?", "Is c=o an acid?", False),
        ("5 MJ?", "5 mJ?", False),
        ("genotype (AA)", "genotype (Aa)", False),
        ("WHICH METAL?", "which Metal?", True),
        ("WHICH OF THE METALS IS (AN) X1?", "Which of the metals is (an) x1?", True),
        ('"Is it (Au)?"', '"is it (au)?"', True),
        ("McDonald", "mcdonald", True),
    ],
)
def test_case_matters_to_an_id_where_it_carries_meaning(one: str, other: str, same: bool) -> None:
    assert (content_id(one, []) == content_id(other, [])) == same
    assert (content_id("q", [one, "x"]) == content_id("q", [other, "x"])) == same


def test_only_case_space_and_order_share_an_id() -> None:
    assert content_id("Which  one?", ["a", "b"]) == content_id("which one?", ["B", " a"])
    assert len({content_id("q", o) for o in (["a", "b"], ["a"], ["ab"], [], ["a", "b", "b"])}) == 5
    assert content_id("q a", []) != content_id("q", ["a"])


WORDS = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from(" \t\n  é\u0301ǅßİ\u2003ABa1²("), max_size=12
)


def fold(word: str) -> str:
    inner = word[next((i for i, c in enumerate(word) if re.match(r"\w", c)), len(word)) + 1 :]
    symbol = any(c.isdigit() for c in word) or sum(c.isalpha() for c in word) <= 3
    return word if symbol and re.search("[A-Z]", inner) else word.casefold()


@settings(max_examples=200, deadline=None)
@given(WORDS, st.lists(WORDS, max_size=4))
def test_content_id_is_the_hash_of_folded_texts(text: str, options: list[str]) -> None:
    clean = [unicodedata.normalize("NFC", part).strip() for part in (text, *options)]
    spoken = [part.casefold() if part.isupper() and len(part.split()) > 1 else part for part in clean]
    folded = [" ".join(map(fold, part.split())) for part in spoken]
    folded = [" ".join(unicodedata.normalize("NFC", part).split()) for part in folded]
    content = "\0".join([folded[0], *sorted(folded[1:])])
    assert content_id(text, options) == hashlib.sha256(content.encode()).hexdigest()[:16]


def test_unusable_gold_is_counted_and_costs_no_question(tmp_path: Path) -> None:
    rows = [GOOD | {"question": f"q{i}", "answer": a} for i, a in enumerate(["Z", {}, "\ud800", None, "", "A"])]
    whole, counts = run(jsonl(tmp_path, rows))
    assert (counts.kept, counts.gold, counts.unusable_gold) == (6, 1, 3)
    assert whole.quarantine.is_empty()
    assert run(jsonl(tmp_path, rows), answer_column=None)[1].unusable_gold == 0


@pytest.mark.parametrize("format_", ["jsonl", "csv", "parquet"])
def test_bytes_that_are_not_utf8_spoil_their_own_value_only(tmp_path: Path, format_: str) -> None:
    path = tmp_path / f"pool.{format_}"
    cells = [(b"a\xff", b"A"), (b"b", b"\xff"), (b"c", b"A")]
    if format_ == "parquet":
        columns = [pa.array(column, pa.binary()).view(pa.string()) for column in zip(*cells, strict=True)]
        pq.write_table(pa.table(columns, ["question", "answer"]), path)
    elif format_ == "csv":
        path.write_bytes(b"question,answer\n" + b"\n".join(map(b",".join, cells)))
    else:
        path.write_bytes(b"\n".join(b'{"question": "%b", "answer": "%b"}' % row for row in cells))
    whole, counts = run(path)
    assert whole.raw_pool["question"].to_list() == ["b", "c"]
    assert (counts.gold, counts.unusable_gold) == (1, 1)
    assert whole.quarantine["reason"].to_list() == ["invalid_utf8"]
    assert "a\\xff" in whole.quarantine["raw"][0]


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ([], "open"),
        (["Yes", "no"], "true_or_false"),
        (["False", "True"], "true_or_false"),
        (["NO", "YES"], "true_or_false"),
        (["Yes", "False"], "multiple_choice"),
        (["yes", "no", "maybe"], "multiple_choice"),
    ],
)
def test_kind_goes_by_the_options(tmp_path: Path, options: list[str], kind: str) -> None:
    pool = run(jsonl(tmp_path, [GOOD | {"options": options}]))[0].raw_pool
    assert pool["kind"].to_list() == [kind]


def test_labels_come_from_configured_columns(tmp_path: Path) -> None:
    row = GOOD | {"level": 2, "task": None, "topic": " x\ud800"}
    pool = run(jsonl(tmp_path, [row]), domain_column=None, task_column="topic")[0].raw_pool
    assert pool.select("domain", "level", "task").row(0) == ("", "2", "x\\ud800")
    assert run(jsonl(tmp_path, [GOOD, GOOD | {"domain": "x" * 1_001}]))[1].quarantined == {"too_long": 1}


N_OPTIONS = st.integers(2, 26)


@settings(max_examples=30, deadline=None)
@given(st.lists(N_OPTIONS, min_size=1, max_size=5, unique=True), st.randoms(use_true_random=False), st.integers(0, 9))
def test_options_are_permuted_by_seed_and_question_only(tmp_path_factory, sizes, random, seed) -> None:
    folder = tmp_path_factory.mktemp("permuted")
    rows = [GOOD | {"question": f"q{n}", "options": [f"o{i}" for i in range(n)], "answer": 1} for n in sizes]
    shuffled = random.sample(rows, len(rows))
    whole = run(jsonl(folder, rows), permute_options=True, seed=seed)[0]
    other = run(jsonl(folder, shuffled), permute_options=True, seed=seed)[0]
    plain = run(jsonl(folder, rows))[0]
    shown = ["id", "options", "permutation"]
    assert whole.raw_pool.select(shown).sort("id").equals(other.raw_pool.select(shown).sort("id"))
    assert whole.raw_pool.select("id", "options").equals(plain.raw_pool.select("id", "options"))
    assert whole.gold_labels.equals(plain.gold_labels)
    assert plain.raw_pool["permutation"].to_list() == [list(range(n)) for n in sizes]
    for row in whole.raw_pool.iter_rows(named=True):
        assert sorted(row["permutation"]) == list(range(len(row["options"])))


def test_every_option_comes_to_every_letter(tmp_path: Path) -> None:
    rows = [GOOD | {"question": f"q{i}", "options": ["a", "b", "c"]} for i in range(600)]
    path = jsonl(tmp_path, rows)
    one, two = (run(path, permute_options=True, seed=seed)[0].raw_pool["permutation"] for seed in (0, 1))
    assert all(150 < count < 250 for at in range(3) for count in one.list.get(at).value_counts()["count"])
    assert one.to_list() != two.to_list()


ANSWERS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.lists(st.text()))
QUESTIONS = st.fixed_dictionaries(
    {
        "question": st.sampled_from(["a", "b", "A ", "", "\x00"]),
        "options": st.lists(st.sampled_from("ABxy"), max_size=3),
    }
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(QUESTIONS, ANSWERS, ANSWERS), min_size=1, max_size=6))
def test_label_firewall(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[dict[str, Any], Any, Any]]) -> None:
    """Pool and refusals are the same whatever the answers are, and without any."""
    folder = tmp_path_factory.mktemp("firewall")
    variants = [
        [row | {"answer": answer} for row, answer, _ in rows],
        [row | {"answer": answer} for row, _, answer in rows],
        [row for row, _, _ in rows],
    ]
    wholes = [run(jsonl(folder, variant))[0] for variant in variants]
    for whole in wholes[1:]:
        assert whole.raw_pool.equals(wholes[0].raw_pool)
        assert whole.quarantine.drop("raw").equals(wholes[0].quarantine.drop("raw"))


LINES = st.one_of(
    st.binary(max_size=40),
    QUESTIONS.map(lambda row: json.dumps(row).encode()),
    st.recursive(
        st.one_of(st.none(), st.integers(), st.text(max_size=5)),
        lambda inner: st.dictionaries(st.sampled_from(["question", "options", "answer", "domain"]), inner, max_size=4),
    ).map(lambda value: json.dumps(value).encode()),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(LINES, max_size=8), st.sampled_from([b"\n", b"\r\n"]), st.sampled_from(["jsonl", "csv", "sciknoweval"]))
def test_any_bytes_are_counted_or_refused_as_a_whole(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], end: bytes, format_: str
) -> None:
    content = end.join(lines)
    path = tmp_path_factory.mktemp("fuzz") / "pool.bin"
    path.write_bytes(content)
    try:
        _, counts = run(path, format=format_)
    except SourceError:
        return
    if format_ != "csv":
        blank = sum(not line.strip() for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n"))
        assert counts.read + blank == len(content.split(b"\n"))


def test_batches_bound_memory_but_not_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = jsonl(tmp_path, [GOOD | {"question": f"q{i // 2}"} for i in range(10)])
    whole, counts = run(path)
    monkeypatch.setattr(ingest, "BATCH_ROWS", 3)
    monkeypatch.setattr(ingest, "MAX_RAW_CHARS", 20)
    assert [batch.height for batch in Ingestion(RawPoolConfig(path=str(path)))] == [3, 3, 3, 1]
    small, counts_small = run(path)
    assert small.raw_pool.equals(whole.raw_pool)
    assert small.quarantine["raw"].to_list() == [raw[:20] for raw in whole.quarantine["raw"]]
    assert counts_small == counts
    assert counts.quarantined == {"duplicate": 5}


def test_limit_reads_the_first_rows(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [GOOD | {"question": f"q{i}"} for i in range(5)])
    assert run(path, limit=2)[0].raw_pool["question"].to_list() == ["q0", "q1"]


def test_too_many_refusals_fail_after_the_tables_are_complete(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [GOOD, [1], {"question": ""}, GOOD])
    _, counts = run(path)
    with pytest.raises(
        SourceError, match=r"3 of 4 rows refused \(75.0%, allowed 5.0%\).*first pool.jsonl:2 not_an_obj"
    ):
        check_counts(counts, RawPoolConfig(path=str(path)))
    check_counts(counts, RawPoolConfig(path=str(path), max_quarantined_share=0.75))


def test_a_damaged_file_fails_whatever_share_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(b"no gzip")
    jsonl(tmp_path, [GOOD])
    _, counts = run(tmp_path)
    with pytest.raises(SourceError, match=r"1 of them stand for the unreadable rest.*first a.jsonl.gz:1 damaged_file"):
        check_counts(counts, RawPoolConfig(max_quarantined_share=1))


def test_no_question_left_fails_whatever_share_is_allowed(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [{"question": ""}])
    config = RawPoolConfig(path=str(path), max_quarantined_share=1)
    with pytest.raises(SourceError, match=r"no question is left.*missing_question 1"):
        check_counts(run(path)[1], config)
    with pytest.raises(ArtifactError, match="3 rows read but 1 kept and 0 quarantined"):
        check_counts(IngestCounts(read=3, kept=1), config)


@pytest.mark.skipif(not SHARED.is_dir(), reason="published data sets are not here")
def test_sciknoweval_is_read_as_published() -> None:
    """All files as one folder; the counts are those of the JSON Lines themselves."""
    whole, counts = run(SHARED / "sciknoweval", format="sciknoweval")
    check_counts(counts, RawPoolConfig())
    assert (counts.read, counts.quarantined) == (7_700, {"duplicate": 1})
    assert counts.gold == counts.kept
    pool = whole.raw_pool
    assert set(pool["kind"]) == {"multiple_choice", "true_or_false", "open"}
    assert set(pool["domain"]) == {"Biology", "Chemistry"}
    assert set(pool["level"]) == {"L1", "L2", "L3", "L4"}
    assert {"laboratory_safety_test", "reaction_prediction"} < set(pool["task"])
    n_options = {"multiple_choice": 4, "true_or_false": 2, "open": 0}
    assert pool.select(pl.col("options").list.len() == pl.col("kind").replace_strict(n_options)).to_series().all()


@pytest.mark.skipif(not SHARED.is_dir(), reason="published data sets are not here")
def test_mmlu_pro_is_read_as_published() -> None:
    path = SHARED / "mmlu_pro" / "test.parquet"
    whole, counts = run(path, format="mmlu_pro")
    check_counts(counts, RawPoolConfig())
    assert counts.read == 12_032
    assert counts.gold == counts.kept
    assert whole.raw_pool["domain"].n_unique() == 14
    assert whole.raw_pool["options"].list.len().max() == 10
    assert whole.raw_pool["task"].str.starts_with("ori_mmlu-").any()
    published = pl.read_parquet(path)
    kept = [int(place.rpartition(":")[2]) - 1 for place in whole.raw_pool["source"]]
    assert whole.gold_labels["gold_index"].to_list() == published["answer_index"][kept].to_list()
    assert run(path, format="mmlu_pro", answer_column=None)[1].gold == 0
