"""What real stages cost: tokens as the artifacts hold them, attempts that add up, and nothing for what stands."""

import json
import signal
import subprocess
import sys
import time

import polars as pl
import pytest

from pipeline.chain import run_chain
from pipeline.digests import digest_file
from pipeline.errors import ArtifactError, SourceError
from pipeline.ledger.attempt import read_attempts
from pipeline.ledger.table import LEDGER_FILE, ledger_of
from pipeline.ledger.usage import Cost
from pipeline.paths import PROJECT_ROOT
from pipeline.presets import load_config
from pipeline.store import shards

N_QUESTIONS = 24


@pytest.fixture
def config(tmp_path, tiny_folder):
    source = tmp_path / "pool.jsonl"
    stems = [f"{'Where When Who'.split()[i % 3]} is thing number {i * 7919 % 1000}" for i in range(N_QUESTIONS)]
    rows = [{"question": f"{stem}?", "options": ["red", "green"], "answer": "A"} for stem in stems]
    source.write_text("\n".join(map(json.dumps, rows)) + "\n")
    settings = [f"raw_pool.path={source}", f"model.path={tiny_folder}", "pool.drop_near_duplicates=false"]
    return [*settings, "rollouts.n_samples=3", "rollouts.max_new_tokens=6"]


def records(run, stage):
    return read_attempts(run.store.ledger.glob(f"{stage}/*"))


def files(run, name):
    folder = run.require(name).folder
    return {path.relative_to(folder): digest_file(path) for path in folder.rglob("*") if path.is_file()}


def test_tokens_are_those_of_the_artifacts_and_what_stands_costs_nothing(run, config):
    outcomes = run_chain(load_config(overrides=config), run, last="neuron_scores")
    rollouts = (
        run.require("rollouts")
        .read()
        .with_columns(prompt=pl.col("prompt_ids").list.len(), response=pl.col("response_ids").list.len())
    )
    prompts, responses = rollouts.unique("id")["prompt"].sum(), rollouts["response"].sum()
    sampling, scoring = outcomes["rollouts"].cost, outcomes["neuron_scores"].cost
    assert (sampling.read_tokens, sampling.generated_tokens) == (prompts, responses)  # once for all samples
    # A prompt's last token is read with each response.
    assert scoring.read_tokens == prompts - N_QUESTIONS + responses + rollouts.height
    assert scoring.generated_tokens == sampling.trained_tokens == 0
    for outcome in outcomes.values():
        assert outcome.cost.seconds > 0
    assert sampling.processor_seconds > 0
    assert sampling.peak_memory > 0
    again = run_chain(load_config(overrides=config), run, last="neuron_scores")
    assert {outcome.cost for outcome in again.values()} == {Cost()}
    ledger = pl.read_parquet(run.folder / LEDGER_FILE)
    assert ledger["stage"].to_list() == list(outcomes)
    assert ledger["shown"].all()
    assert ledger.equals(ledger_of(run))


def test_what_is_apart_in_the_batch_is_read_whole(run, config):
    alone = load_config(overrides=[*config, "neuron_scores.batch_tokens=1", "rollouts.batch_tokens=1"])
    outcomes = run_chain(alone, run, last="neuron_scores")
    rollouts = run.require("rollouts").read()
    prompts, responses = (rollouts[name].list.len().sum() for name in ("prompt_ids", "response_ids"))
    assert outcomes["rollouts"].cost.read_tokens == prompts
    assert outcomes["neuron_scores"].cost.read_tokens == prompts + responses


def test_another_run_knows_what_it_shows_cost_and_that_it_paid_nothing(run, config):
    run_chain(load_config(overrides=config), run, last="pool")
    other = run.store.run("other")
    outcomes = run_chain(load_config(overrides=config), other, last="pool")
    assert {outcome.cost for outcome in outcomes.values()} == {Cost()}
    ledger = pl.read_parquet(other.folder / LEDGER_FILE)
    assert ledger.equals(ledger_of(run))
    assert ledger["run"].to_list() == ["test", "test"]


def test_other_settings_stay_in_the_ledger_of_the_run(run, config):
    for changes in ([], ["pool.ngram_size=1"], []):
        run_chain(load_config(overrides=[*config, *changes]), run, last="pool")
        assert pl.read_parquet(run.folder / LEDGER_FILE).equals(ledger_of(run))
    ledger = ledger_of(run)
    assert ledger["stage"].to_list() == ["raw_pool", "pool", "pool"]
    assert ledger["shown"].to_list() == [True, True, False]


def test_a_stage_that_fails_is_recorded_as_such(run, config, tmp_path):
    (tmp_path / "pool.jsonl").write_text("{broken\n")
    with pytest.raises(SourceError):
        run_chain(load_config(overrides=config), run, last="raw_pool")
    assert [record.state for record in records(run, "raw_pool")] == ["failed"]
    (tmp_path / "pool.jsonl").unlink()
    with pytest.raises((SourceError, ArtifactError)):
        run_chain(load_config(overrides=config), run, last="raw_pool")
    assert len(records(run, "raw_pool")) == 1  # nothing was begun


@pytest.mark.parametrize("harm", ["no record", "damaged", "in the way", "table damaged"])
def test_no_harm_to_the_ledger_fails_a_run_or_changes_what_it_makes(run, config, tmp_path, caplog, harm):
    made = load_config(overrides=config)
    run_chain(made, run, last="pool")
    before = files(run, "pool")
    [record] = run.store.ledger.glob("pool/*/*.json")
    if harm == "no record":
        record.unlink()
    elif harm == "damaged":
        record.write_bytes(record.read_bytes()[:40])
    elif harm == "in the way":
        record.unlink()
        record.parent.rmdir()
        record.parent.write_text("")
    else:
        (run.folder / LEDGER_FILE).write_bytes(b"PAR1")
    assert all(outcome.cached for outcome in run_chain(made, run, last="pool").values())
    run.require("pool").path().unlink()
    outcomes = run_chain(made, run, last="pool")
    assert [name for name, outcome in outcomes.items() if not outcome.cached] == ["pool"]
    assert files(run, "pool") == before
    assert len(caplog.messages) == (harm in ("damaged", "in the way"))
    assert pl.read_parquet(run.folder / LEDGER_FILE)["stage"].to_list()[0] == "raw_pool"


RUN = """
import json, sys
from pathlib import Path
from pipeline.chain import run_chain
from pipeline.ledger import attempt
from pipeline.presets import load_config
from pipeline.stages import open_store
from pipeline.store import shards

attempt.UPDATE_SECONDS = 0.02
shards.QUESTIONS_PER_SHARD = int(sys.argv[3])
run_chain(load_config(overrides=json.loads(sys.argv[4])), open_store(Path(sys.argv[1])).run(sys.argv[2]), "rollouts")
"""


def begin(run, name, config, per_shard=4):
    command = [sys.executable, "-c", RUN, str(run.store.root), name, str(per_shard), json.dumps(config)]
    return subprocess.Popen(command, cwd=PROJECT_ROOT, stderr=subprocess.DEVNULL)


def test_a_killed_stage_and_its_resumption_add_up(run, config, monkeypatch):
    with begin(run, "test", config) as process:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if list(run.store.artifacts.glob("rollouts/.*.part/*/shard-*.parquet")):
                break
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    kept = list(run.store.artifacts.glob("rollouts/.*.part/*/shard-*.parquet"))
    n_kept = pl.scan_parquet(kept).select(pl.col("response_ids").list.len().sum()).collect().item()
    monkeypatch.setattr(shards, "QUESTIONS_PER_SHARD", 4)
    run_chain(load_config(overrides=config), run, "rollouts")
    killed, done = records(run, "rollouts")
    assert (killed.state, done.state) == ("killed", "done")
    n_tokens = run.require("rollouts").read()["response_ids"].list.len().sum()
    assert done.generated_tokens == n_tokens - n_kept
    assert killed.processor_seconds > 0
    ledger = pl.read_parquet(run.folder / LEDGER_FILE).filter(stage="rollouts")
    assert ledger["state"].to_list() == ["killed", "done"]
    assert ledger["shown"].all()
    assert ledger["generated_tokens"].sum() == killed.generated_tokens + done.generated_tokens


def test_two_runs_at_once_have_a_ledger_each(run, config):
    changed = [*config, "rollouts.temperature=0.9"]
    processes = [begin(run, "one", config), begin(run, "two", changed)]
    assert [process.wait(300) for process in processes] == [0, 0]
    for name in ("one", "two"):
        own = run.store.run(name)
        n_tokens = own.require("rollouts").read()["response_ids"].list.len().sum()
        ledger = pl.read_parquet(own.folder / LEDGER_FILE).filter(stage="rollouts")
        assert ledger["generated_tokens"].to_list() == [n_tokens]
        assert ledger.select("run", "state", "shown").rows() == [(name, "done", True)]
