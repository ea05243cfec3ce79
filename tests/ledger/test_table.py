"""The ledger of a run: what it shows whoever made it, what else it spent, and how people see it."""

import json
import threading
from datetime import UTC, datetime, timedelta

import polars as pl
import pyarrow.parquet as pq
import pytest

from pipeline.ledger.attempt import Attempt
from pipeline.ledger.table import LEDGER, LEDGER_FILE, align, cost_to_make, ledger_of, show_ledger, write_ledger
from pipeline.ledger.usage import Cost
from pipeline.stages import open_store
from pipeline.store.__main__ import main

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path)


def record(store, stage, fingerprint, run, minute=0, **changes):
    given = {"objective": None, "state": "done", "seconds": 2.0, "read_tokens": 10, "peak_memory": 5_000_000} | changes
    attempt = Attempt(stage=stage, fingerprint=fingerprint, run=run, started=START + timedelta(minutes=minute), **given)
    folder = store.ledger / stage / fingerprint
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{run}-{minute}.json").write_text(attempt.model_dump_json())


def show(store, run, stage, fingerprint):
    with store.write(stage, fingerprint, {}, {"inputs": {}, "model": None}):
        pass
    return store.run(run).show(stage, fingerprint)


@pytest.fixture
def filled(store):
    """Run ``a`` made the pool with two attempts and the rollouts at two settings, run ``b`` shows one of them."""
    for run in ("a", "b"):
        show(store, run, "pool", "p")
        show(store, run, "rollouts", f"r{run}")
    record(store, "rollouts", "ra", "a", 3, generated_tokens=70)
    record(store, "rollouts", "rb", "a", 4, generated_tokens=90)
    record(store, "pool", "p", "a", 1, state="killed", peak_memory=None)
    record(store, "pool", "p", "a", 2, peak_memory=8_000_000)
    record(store, "rival_adapter", "x", "b", 5, objective="sft", state="failed", trained_tokens=1234, gpu_seconds=9.0)
    return store


def test_a_run_s_ledger_is_of_what_it_shows_and_of_what_else_it_tried(filled):
    rows = ledger_of(filled.run("a")).select("stage", "fingerprint", "run", "state", "shown").rows()
    assert rows == [
        ("pool", "p", "a", "killed", True),
        ("pool", "p", "a", "done", True),
        ("rollouts", "ra", "a", "done", True),
        ("rollouts", "rb", "a", "done", False),
    ]
    other = ledger_of(filled.run("b"))
    assert other["fingerprint"].to_list() == ["p", "p", "rb", "x"]
    assert other["run"].to_list() == ["a", "a", "a", "b"]
    assert other["shown"].to_list() == [True, True, True, False]


def test_attempts_at_an_artifact_add_up_whatever_run_made_them(filled):
    record(filled, "pool", "p", "b", 9)
    assert cost_to_make(filled, "pool", "p") == Cost(seconds=6.0, read_tokens=30, peak_memory=8_000_000)
    assert cost_to_make(filled, "pool", "unknown") == Cost()


def test_the_file_has_the_declared_schema_and_polars_and_duckdb_read_it(filled):
    run = filled.run("b")
    write_ledger(run)
    path = run.folder / LEDGER_FILE
    assert pq.read_schema(path).equals(LEDGER, check_metadata=True)
    assert pl.read_parquet(path).equals(ledger_of(run))
    assert all(field.metadata[b"note"] for field in LEDGER)
    duckdb = pytest.importorskip("duckdb")
    query = f"select run, sum(seconds), sum(generated_tokens) from '{path}' where shown group by run"
    assert duckdb.sql(query).fetchall() == [("a", 6.0, 90)]


def test_a_run_that_shows_nothing_gets_no_folder_and_a_file_in_the_way_is_said_in_one_line(filled, caplog):
    write_ledger(filled.run("nothing"))
    assert not filled.run("nothing").folder.exists()
    (filled.run("a").folder / LEDGER_FILE).mkdir()
    write_ledger(filled.run("a"))
    [message] = caplog.messages
    assert message.startswith(f"{filled.run('a').folder}/{LEDGER_FILE} cannot be written (")


def test_of_many_that_write_it_at_once_the_last_has_seen_all(filled):
    run = filled.run("a")

    def work(number):
        record(filled, "tests", f"t{number}", "a", 10 + number)
        write_ledger(run)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pl.read_parquet(run.folder / LEDGER_FILE).filter(stage="tests").height == 8


def test_people_see_stages_and_totals(filled, capsys):
    assert main(["ledger", "--store", str(filled.root)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "a",
        "                         attempts  seconds  memory MB  read tokens  generated",
        "pool                            2      4.0          8           20          0",
        "rollouts                        1      2.0          5           10         70",
        "(rollouts)                      1      2.0          5           10         90",
        "all that the run shows          3      6.0          8           30         70",
        "(all that it does not)          1      2.0          5           10         90",
        "spent by the run itself         4      8.0          8           40        160",
        "",
        "b",
        "                         objective  attempts  seconds  GPU s  memory MB  read tokens  generated  trained",
        "pool                                       2      4.0    0.0          8           20          0        0",
        "rollouts                                   1      2.0    0.0          5           10         90        0",
        "(rival_adapter)          sft               1      2.0    9.0          5           10          0    1,234",
        "all that the run shows                     3      6.0    0.0          8           30         90        0",
        "(all that it does not)                     1      2.0    9.0          5           10          0    1,234",
        "spent by the run itself                    1      2.0    9.0          5           10          0    1,234",
        "",
    ]


def test_programs_get_a_line_of_json_for_each_attempt(filled, capsys):
    assert main(["ledger", "--store", str(filled.root), "--run", "b", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["fingerprint"] for row in rows] == ["p", "p", "rb", "x"]
    assert set(rows[0]) == set(LEDGER.names)
    assert (rows[-1]["objective"], rows[-1]["trained_tokens"], rows[0]["peak_memory"]) == ("sft", 1234, None)


def test_a_run_without_records_and_one_that_is_not_there(store, capsys):
    show(store, "old", "pool", "p")
    assert main(["ledger", "--store", str(store.root), "--run", "old"]) == 0
    assert capsys.readouterr().out == "old\nno attempt is recorded\n\n"
    assert main(["ledger", "--store", str(store.root), "--run", "older"]) == 2
    assert capsys.readouterr().err.startswith("error: there is no run 'older' in ")


def test_unknown_memory_is_a_question_mark(store):
    record(store, "pool", "p", "a", peak_memory=None)
    assert "?" in show_ledger(ledger_of(store.run("a")), {}).splitlines()[1]


def test_columns_in_which_nothing_stands_are_left_out():
    assert align([["", "n", "m"], ["a", "1", "0"], ["bb", "20", ""]]) == "     n\na    1\nbb  20"


def test_prune_removes_records_with_what_they_are_of(filled, capsys):
    assert main(["prune", "--young", "--store", str(filled.root)]) == 0
    assert {folder.name for folder in filled.ledger.glob("*/*")} == {"p", "ra", "rb"}
    assert main(["remove", "--store", str(filled.root), "b"]) == 0
    assert main(["prune", "--young", "--store", str(filled.root)]) == 0
    assert {folder.name for folder in filled.ledger.glob("*/*")} == {"p", "ra"}


def test_prune_keeps_young_records(filled):
    assert main(["prune", "--store", str(filled.root)]) == 0
    assert {folder.name for folder in filled.ledger.glob("*/*")} == {"p", "ra", "rb", "x"}
