"""Statistics of a pool: counts that add up, quantiles by definition, and nothing of the answers."""

import json
from pathlib import Path

from pipeline.chain import materialize
from pipeline.model_config import ModelConfig
from pipeline.pool.config import RawPoolConfig
from pipeline.pool.ingest import Ingestion
from pipeline.pool.stage import RAW_POOL_STAGE
from pipeline.pool.statistics import N_SHOWN, count_table
from pipeline.stages import open_store


def write(folder: Path, answer: object) -> RawPoolConfig:
    rows = [
        {"question": "x" * n, "options": ["yes", "no"], "domain": f"d{n % 3}", "level": "L1", "answer": answer}
        for n in range(1, 101)
    ]
    path = folder / "pool.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in [*rows, rows[0]]))
    return RawPoolConfig(path=str(path))


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_tables_of_a_pool(tmp_path: Path) -> None:
    ingestion = Ingestion(write(tmp_path, "A"))
    assert sum(batch.height for batch in ingestion) == 101
    tables = ingestion.tables()
    assert cells(tables["by_domain"]) == [["d1", "34", "34.0%"], ["d0", "33", "33.0%"], ["d2", "33", "33.0%"]]
    assert cells(tables["by_level"]) == [["L1", "100", "100.0%"]]
    assert cells(tables["by_task"]) == [["(none)", "100", "100.0%"]]
    assert cells(tables["by_kind"]) == [["true_or_false", "100", "100.0%"]]
    assert cells(tables["by_number_of_options"]) == [["2", "100", "100.0%"]]
    assert [int(n) for _, n in cells(tables["question_characters"])] == [1, 5, 25, 50, 75, 95, 100]
    assert cells(tables["refused_by_reason"]) == [["duplicate", "1", "100.0%"]]


def test_long_tables_are_summed_up() -> None:
    rows = cells(count_table("domain", {f"d{n:02}": 1 for n in range(N_SHOWN + 5)}))
    assert rows[0] == ["d00", "1", "4.0%"]
    assert rows[-1] == ["(5 others)", "5", "20.0%"]


def test_notes_of_pool_and_quarantine_say_nothing_of_answers(tmp_path: Path) -> None:
    notes = {}
    for answer in ("A", "neither", None):
        folder = tmp_path / str(answer)
        folder.mkdir()
        run = open_store(folder / "data").run("test")
        materialize(RAW_POOL_STAGE, write(folder, answer), ModelConfig(), run)
        notes[answer] = [run.require(name).manifest.notes for name in ("raw_pool", "quarantine", "gold_labels")]
    for pool, quarantine, _ in notes.values():
        assert pool == quarantine == notes["A"][0]
    assert [gold for _, _, gold in notes.values()] == [
        {"usable": 100, "unusable": 0},
        {"usable": 0, "unusable": 100},
        {"usable": 0, "unusable": 0},
    ]
    assert notes["A"][0]["read"] == notes["A"][0]["kept"] + notes["A"][0]["refused"] == 101
