"""Tasks of lm-evaluation-harness on the models of a run, against plain greedy decoding of the reference model."""

import json
import re

import numpy as np
import polars as pl
import pytest
import torch
import yaml

pytest.importorskip("lm_eval", reason="the extra 'harness' is not installed")

from peft import LoraConfig, get_peft_model

from pipeline.errors import ConfigError
from pipeline.harness.__main__ import main
from pipeline.harness.ask import named_tasks
from pipeline.harness.results import find_results
from pipeline.harness.schemas import HARNESS_FILE
from pipeline.model_config import ModelConfig
from pipeline.models import encode_chat, load_model
from pipeline.paths import PROJECT_ROOT
from pipeline.report.page_file import page_path

PROMPT = "{{question}}\n{% for option in options %}{{'ABCD'[loop.index0]}}. {{option}}\n{% endfor %}"
STATED = r"Answer: (\w+)"
MODEL = ModelConfig(path="data/reference/model")


@pytest.fixture(scope="module")
def documents():
    lines = (PROJECT_ROOT / "data" / "reference" / "in_domain_test.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines[::47]]


@pytest.fixture
def tasks(tmp_path, documents):
    """A folder with the task ``schools``, of which nothing comes from the hub."""
    (tmp_path / "tasks").mkdir()
    data = tmp_path / "tasks" / "schools.jsonl"
    data.write_text("".join(f"{json.dumps(document)}\n" for document in documents))
    task = {
        "task": "schools",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(tmp_path / "cache")},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": PROMPT,
        "doc_to_target": "{{options['ABCD'.index(answer)]}}",
        "generation_kwargs": {"until": ["<|end|>"], "max_gen_toks": 24},
        "filter_list": [
            {"name": "stated", "filter": [{"function": "regex", "regex_pattern": STATED}, {"function": "take_first"}]}
        ],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    (tmp_path / "tasks" / "schools.yaml").write_text(yaml.safe_dump(task))
    return tmp_path / "tasks"


def put_adapter(put, run, name, noise):
    def save(folder):
        torch.manual_seed(0)
        adapted = get_peft_model(load_model(MODEL).model, LoraConfig(target_modules=["down_proj"]))
        for key, weight in adapted.named_parameters():
            if "lora_B" in key:  # zero: the model as it is
                torch.nn.init.normal_(weight, std=noise)
        adapted.save_pretrained(folder)

    notes = {"model": MODEL.model_dump(exclude={"device"}), "label": "sft"}
    notes |= {"title": "a method", "training_questions": 8}
    put(run, name, model=MODEL, notes=notes, save=save)


def greedy(documents):
    """Return 1 for each document that the untouched model gets right, else 0."""
    model = load_model(MODEL)
    right = []
    for document in documents:
        options = "".join(f"{letter}. {option}\n" for letter, option in zip("ABCD", document["options"], strict=True))
        ids = torch.tensor([encode_chat(model.tokenizer, f"{document['question']}\n{options}")])
        written = model.model.generate(ids, max_new_tokens=24, do_sample=False)[0, ids.shape[1] :]
        stated = re.search(STATED, model.tokenizer.decode(written))
        right.append(float(bool(stated) and stated[1] == document["options"]["ABCD".index(document["answer"])]))
    return right


def test_models_of_a_run_are_asked_and_their_differences_paired(run, put, tasks, documents, capsys):
    put_adapter(put, run, "distilled_adapter", noise=0.0)
    put_adapter(put, run, "rival_adapter", noise=3.0)
    put(run, "ceiling_adapter", notes={"skipped": "not asked for"})
    options = ["--run", run.name, "--store", str(run.store.root), "--include-path", str(tasks)]
    assert main([*options, "--in-domain", "schools", "--batch-size", "3"]) == 0
    right, (n,) = greedy(documents), {len(documents)}
    assert 0 < sum(right) < n
    table = pl.read_parquet(run.folder / HARNESS_FILE)
    rows = {row["model"]: row for row in table.to_dicts()}
    assert list(rows) == ["untouched", "sft", "distilled", "distilled - untouched", "distilled - sft"]
    assert set(table["split"]) == {"in_domain"}
    assert table.select("task", "filter", "metric", "n").unique().rows() == [("schools", "stated", "exact_match", n)]
    error = np.std(right, ddof=1) / np.sqrt(n)
    assert [rows["untouched"][name] for name in ("value", "stderr")] == pytest.approx([np.mean(right), error])
    assert [rows["distilled - untouched"][name] for name in ("value", "stderr")] == [0, 0]
    assert rows["sft"]["value"] == 0  # noise answers nothing
    gap = rows["distilled - sft"]
    assert [gap["value"], gap["stderr"]] == pytest.approx([np.mean(right), error])
    assert rows["distilled"]["fingerprint"] == run.require("distilled_adapter").manifest.fingerprint
    printed = capsys.readouterr().out
    assert f"+{np.mean(right):.3f} ({error:.3f})" in printed
    assert printed.endswith(f"{run.folder / HARNESS_FILE}\n{page_path(run)}\n")
    page = page_path(run).read_text()
    assert f'<span class="estimate">{np.mean(right):.3f}</span>' in page
    assert find_results(run).command.endswith(f"--include-path {tasks} --in-domain schools --batch-size 3")

    (tasks / "schools.jsonl").unlink()
    assert main([*options, "--out-of-domain", "schools"]) == 2
    assert "schools cannot be asked" in capsys.readouterr().err
    assert set(pl.read_parquet(run.folder / HARNESS_FILE)["split"]) == {"in_domain"}  # what failed left it alone


def test_an_unknown_task_names_the_nearest(tasks):
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(tasks), include_defaults=False)  # those of the harness take 12 s to read
    assert named_tasks(manager, ["sch*"]) == ["schools"]
    with pytest.raises(ConfigError, match="there is no task 'scools', did you mean 'schools'"):
        named_tasks(manager, ["scools"])


def test_a_run_without_adapter_and_another_base_are_refused(run, put, capsys):
    options = ["--run", run.name, "--store", str(run.store.root), "--in-domain", "x"]
    assert main(options) == 2
    assert "no trained adapter: materialize 'distilled_adapter' first" in capsys.readouterr().err
    notes = {"model": MODEL.model_dump(exclude={"device"})}
    put(run, "distilled_adapter", notes=notes)
    assert main(options) == 2
    assert "is no longer the model of run 'test'" in capsys.readouterr().err
