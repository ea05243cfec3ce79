"""Held-out questions: any layout beside any pool, any split of a data set, and errors that name their setting."""

import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import SourceError
from pipeline.held_out.questions import find_held_out, held_out_layout
from pipeline.pool.config import RawPoolConfig
from pipeline.pool.ingest import Ingestion

SETTING = "tests.in_domain_path"
PLAIN = {"question": "Which?", "options": ["red", "blue"], "answer": "B"}
SCIKNOWEVAL = {
    "question": "Which?",
    "choices": {"text": ["red", "blue"], "label": ["A", "B"]},
    "answerKey": "B",
    "type": "mcq-2-choices",
}
MMLU_PRO = {
    "question_id": 1,
    "question": "Which?",
    "options": ["red", "blue"],
    "answer": "B",
    "answer_index": 1,
    "cot_content": "",
    "category": "law",
    "src": "x",
}
FILES = ("plain.jsonl", "plain.csv", "plain.parquet", "sciknoweval.jsonl", "mmlu_pro.parquet")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "plain.jsonl").write_text(json.dumps(PLAIN))
    (tmp_path / "plain.csv").write_text('question,options,answer\nWhich?,"[""red"", ""blue""]",B\n')
    (tmp_path / "sciknoweval.jsonl").write_text(json.dumps(SCIKNOWEVAL))
    pq.write_table(pa.Table.from_pylist([PLAIN]), tmp_path / "plain.parquet")
    pq.write_table(pa.Table.from_pylist([MMLU_PRO]), tmp_path / "mmlu_pro.parquet")
    return tmp_path


@pytest.mark.parametrize("pool", ["auto", "jsonl", "csv", "parquet", "sciknoweval", "mmlu_pro", "huggingface"])
def test_every_layout_is_read_beside_a_pool_of_any(files: Path, pool: str) -> None:
    for name in FILES:
        test = find_held_out(str(files / name), SETTING, RawPoolConfig(format=pool))
        questions, gold = test.read()
        assert questions["options"].to_list() == [["red", "blue"]]
        assert gold.select("gold_answer", "gold_index").rows() == [("blue", 1)]
        assert [source.path.name for source in test.sources] == [name]


@pytest.mark.parametrize(("name", "domain"), [("sciknoweval.jsonl", ""), ("mmlu_pro.parquet", "law")])
def test_auto_recognises_published_layouts(files: Path, name: str, domain: str) -> None:
    (batch,) = Ingestion(RawPoolConfig(path=str(files / name), question_column="stem"))
    assert batch.raw_pool.select("question", "options", "domain").rows() == [("Which?", ["red", "blue"], domain)]


def test_recognition_does_not_depend_on_answers(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for change in ({"answerKey": ""}, {"answerKey": "A"}, {"answer": "x"}):
        path.write_text(json.dumps({k: v for k, v in SCIKNOWEVAL.items() if k != "answerKey"} | change))
        assert find_held_out(str(path), SETTING, RawPoolConfig()).read()[0]["options"].to_list() == [["red", "blue"]]


def test_a_split_of_the_pools_own_data_set(tmp_path: Path) -> None:
    rows = [PLAIN | {"question": f"q{i}"} for i in range(4)]
    whole = datasets.Dataset.from_list(rows)
    datasets.DatasetDict(train=whole.select([0, 1]), test=whole.select([2, 3])).save_to_disk(tmp_path / "saved")
    pool = RawPoolConfig(path=str(tmp_path / "saved"), format="huggingface")
    for layout in (pool, RawPoolConfig()):
        questions, _ = find_held_out(f"{tmp_path}/saved#test", SETTING, layout).read()
        assert questions["question"].to_list() == ["q2", "q3"]
    with pytest.raises(SourceError, match=rf"^{SETTING}: .*cannot be opened .*<data set>#<split>"):
        find_held_out(f"{tmp_path}/saved#dev", SETTING, pool).read()
    (tmp_path / "a#b.jsonl").write_text(json.dumps(PLAIN))
    assert len(find_held_out(f"{tmp_path}/a#b.jsonl", SETTING, pool).read()[0]) == 1


def test_a_hub_data_set_has_its_own_subset_and_revision() -> None:
    pool = RawPoolConfig(path="hf://datasets/a/b", subset="hard", revision="v1", split="train")
    own = held_out_layout("hf://datasets/a/b#test", pool)
    assert (own.path, own.subset, own.revision, own.split) == (pool.path, "hard", "v1", "test")
    other = held_out_layout("hf://datasets/a/c#test", pool)
    assert (other.subset, other.revision, other.split) == (None, None, "test")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, "is not an existing file"),
        ("empty.jsonl", "", "holds no rows"),
        ("stem.jsonl", '{"stem": "a"}', r"no column 'question'.*held-out files have the pool's columns"),
        ("bad.jsonl", '{"question": ""}', "no question is left"),
    ],
)
def test_errors_name_the_setting_alone(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(SourceError, match=message) as caught:
        find_held_out(str(tmp_path / name), SETTING, RawPoolConfig()).read()
    assert str(caught.value).startswith(f"{SETTING}: ")
    assert "raw_pool.path" not in str(caught.value)
    assert "quarantine" not in str(caught.value)
