"""The stage on disk: shards that survive a kill, rows that are taken over, weights that changed are noticed."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch

from pipeline.causal.config import CausalCheckConfig
from pipeline.chain import materialize
from pipeline.correlation import rank_correlation
from pipeline.errors import ArtifactError, CheckError, ModelError
from pipeline.model_config import ModelConfig
from pipeline.models import load_model
from pipeline.neurons.config import NeuronScoresConfig
from pipeline.neurons.score import NeuronScorer, scorable
from pipeline.neurons.stage import NEURON_SCORES_STAGE
from pipeline.paths import PROJECT_ROOT
from pipeline.stages import CATALOGUE, open_store, stage_of
from pipeline.store import shards

N = 21
SECTION = NeuronScoresConfig(top_k=60, batch_tokens=64)
TABLES = tuple(CATALOGUE["neuron_scores"])
PER_ROLLOUT = ("neuron_scores", "neuron_sizes", "rationale_scores")
CHECK = CausalCheckConfig(n_questions=4, top_n=5, n_resamples=100)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "QUESTIONS_PER_SHARD", 4)


@pytest.fixture
def fill(put, tiny_config):
    """Return a function that stores ``n`` rollouts of random tokens; those numbered ``empty`` have no response."""

    def fill_run(run, n=N, empty=(5,), n_samples=1, n_shards=2):
        keys = [{"id": f"q{i // n_samples:02}", "sample": i % n_samples} for i in range(n)]
        rows = []
        for i, key in enumerate(keys):
            rng = np.random.default_rng(i)
            tokens = {
                "prompt_ids": rng.integers(9, 200, 5).tolist(),
                "response_ids": [] if i in empty else rng.integers(9, 200, rng.integers(1, 12)).tolist(),
            }
            rows.append(key | tokens | {"stem_start": 1, "stem_stop": 4, "finish_reason": "stop"})
        stated = [key | {"answer_start": 0, "answer_stop": i % 2, "extraction": "none"} for i, key in enumerate(keys)]
        put(run, "rollouts", model=tiny_config, n_shards=n_shards, rollouts=rows)
        put(run, "answers", model=tiny_config, inputs=["rollouts"], n_shards=n_shards, answers=stated)
        return run

    return fill_run


@pytest.fixture
def score(tiny_config):
    def score_run(run, model=tiny_config, **changes):
        return materialize(NEURON_SCORES_STAGE, SECTION.model_copy(update=changes), model, run)

    return score_run


@pytest.fixture
def scored_ids(monkeypatch):
    """Return the ids that are scored, in a list that grows."""
    found, whole = [], NeuronScorer.score
    monkeypatch.setattr(
        NeuronScorer,
        "score",
        lambda scorer, rows, done: (found.extend(rows["id"]), whole(scorer, rows, done))[1],
    )
    return found


def files(artifact):
    return {p.relative_to(artifact.folder): p.read_bytes() for p in sorted(artifact.folder.rglob("*.parquet/*"))}


def whole(run, model):
    """Return a scorer, and what it makes of all rollouts at once."""
    scorer = NeuronScorer(load_model(model), SECTION.model_copy(update={"batch_tokens": 10_000}))
    rows = scorable(run.require("rollouts").scan(), run.require("answers").scan()).collect()
    return scorer, scorer.score(rows.sort("id", "sample"))


def test_shards_hold_every_rollout(run, fill, score, tiny_config):
    artifact = score(fill(run)).artifact
    manifest = artifact.manifest
    assert manifest.rows == {table: 1 if table == "unscored_rollouts" else N - 1 for table in TABLES}
    assert manifest.notes["unscored"] == {"empty_response": 1}
    assert manifest.notes["scored"] == N - 1
    scorer, expected = whole(run, tiny_config)
    for table in ("neuron_scores", "rationale_scores", "stem_scores"):
        assert artifact.read(table).sort("id")["id", "neurons"].equals(getattr(expected, table)["id", "neurons"])
    used = expected.neuron_scores["neurons"].explode(empty_as_null=False).n_unique()
    assert manifest.notes["model_utilization_index"] == pytest.approx(used / scorer.n_neurons)
    names = [path.name for path in artifact.files()]
    assert len(names) > 4
    for table in TABLES:
        assert [path.name for path in artifact.files(table)] == names
        for path, (number, rows) in zip(names, enumerate(artifact.scan_shards(table)), strict=True):
            ids = rows.collect()["id"]
            assert ids.is_sorted()
            assert path == f"shard-{number:05}.parquet"
            assert {shards.shard_number(question, 8) for question in ids} <= {number}
    footer = pq.read_metadata(artifact.files()[0]).metadata
    assert len(footer[b"fingerprint"]) == 64
    assert int(footer[b"n_layers"]) * int(footer[b"d_mlp"]) == scorer.n_neurons


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path, fill, score, tiny_config):
    whole, killed = (fill(open_store(tmp_path / name).run("test")) for name in ("whole", "killed"))
    expected = score(whole).artifact
    program = f"""
import time
from pathlib import Path
from pipeline.chain import materialize
from pipeline.model_config import ModelConfig
from pipeline.neurons.score import NeuronScorer
from pipeline.stages import open_store, stage_of
from pipeline.store import shards

shards.QUESTIONS_PER_SHARD = 4
score = NeuronScorer.score
NeuronScorer.score = lambda *arguments: (time.sleep(0.3), score(*arguments))[1]
spec, run = stage_of("neuron_scores"), open_store(Path({str(killed.store.root)!r})).run("test")
materialize(spec, spec.section(**{SECTION.model_dump()!r}), ModelConfig(path={tiny_config.path!r}), run)
"""

    def stored():
        return list((killed.store.artifacts / "neuron_scores").glob(".*.part/neuron_scores.parquet/*.parquet"))

    process = subprocess.Popen([sys.executable, "-c", program], cwd=PROJECT_ROOT, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while len(stored()) < 2:
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert killed.find("neuron_scores") is None
    kept = {path.name: path.stat().st_mtime_ns for path in stored()}
    artifact = score(killed).artifact
    assert len(artifact.files()) > len(kept) >= 2
    assert kept.items() <= {path.name: path.stat().st_mtime_ns for path in artifact.files()}.items()
    assert files(artifact) == files(expected)
    assert stored() == []


def test_a_pool_that_grows_has_its_new_questions_scored_and_no_other(run, fill, score, scored_ids):
    before = score(fill(run, n=40)).artifact
    assert sorted(scored_ids) == [f"q{i:02}" for i in range(40)]
    scored_ids.clear()
    after = score(fill(run, n=42)).artifact
    assert sorted(scored_ids) == ["q40", "q41"]
    for table in TABLES:
        own = after.read(table).filter(~pl.col("id").is_in(["q40", "q41"]))
        assert own.sort("id").equals(before.read(table).sort("id"))
    assert after.manifest.rows == {table: 1 if table == "unscored_rollouts" else 41 for table in TABLES}


def test_only_questions_whose_rollouts_changed_are_scored_again(run, fill, score, scored_ids):
    score(fill(run, n=12, empty=()))
    scored_ids.clear()
    after = score(fill(run, n=12, empty=(3, 7))).artifact
    assert sorted(scored_ids) == ["q03", "q07"]
    assert sorted(after.read("unscored_rollouts")["id"]) == ["q03", "q07"]


@pytest.mark.parametrize("n_questions", [1, 2, 7, 1_000])
def test_the_size_of_shards_changes_no_row(run, fill, score, tiny_config, monkeypatch, n_questions):
    """Every question has one row of its stem, but the one whose sample 0 cannot be scored."""
    monkeypatch.setattr(shards, "QUESTIONS_PER_SHARD", n_questions)
    artifact = score(fill(run, empty=(6, 10), n_samples=3, n_shards=4)).artifact
    expected = whole(run, tiny_config)[1]
    for table in ("stem_scores", "stem_states"):
        assert sorted(artifact.read(table)["id"]) == [f"q{question:02}" for question in range(N // 3) if question != 2]
    for table in PER_ROLLOUT:
        assert artifact.read(table).height == N - 2
    columns = ["id", "sample", "neurons"]
    assert artifact.read().sort("id", "sample")[columns].equals(expected.neuron_scores[columns])


def test_sizes_that_follow_the_length_of_responses_are_warned_of(run, fill, score):
    artifact = score(fill(run)).artifact
    notes, sizes = artifact.manifest.notes, artifact.read("neuron_sizes")
    rho = rank_correlation(sizes["n_neurons"], sizes["n_response_tokens"])
    assert notes["rank_correlation_of_support"]["n_response_tokens"] == pytest.approx(rho)
    assert rho < -0.5
    assert f"smaller neuron sets (rank correlation of mean |N| with mean response tokens {rho:.2f}" in notes["warning"]


def test_weights_changed_under_the_same_name_are_noticed(tmp_path, run, fill, score, tiny_config, tiny):
    fill(run)
    changed = tmp_path / "model"
    with torch.no_grad():
        loaded = load_model(tiny_config)
        loaded.model.model.layers[0].mlp.down_proj.weight[0, 0] += 1
    loaded.model.save_pretrained(changed)
    tiny.tokenizer.save_pretrained(changed)
    with pytest.raises(ArtifactError, match=r"'rollouts' .*with other weights.*materialize 'rollouts' again"):
        score(run, ModelConfig(path=str(changed)))
    assert run.find("neuron_scores") is None


def test_settings_that_change_nothing_lose_no_work(run, fill, score, tiny_config, monkeypatch):
    fill(run, n=8, empty=(0, 2, 3))
    with pytest.raises(ModelError, match="3 of 8 rollouts cannot be scored"):
        score(run, max_unscored_share=0.3)
    monkeypatch.setattr(NeuronScorer, "score", None)  # nothing is scored again
    assert not score(run, max_unscored_share=0.4, batch_tokens=9, chunk_tokens=3).cached
    assert score(run, tiny_config.model_copy(update={"dtype": "float32"})).cached
    with pytest.raises(CheckError, match="scored_share failed: 3 of 8 rollouts cannot be scored"):
        score(run, max_unscored_share=0.3)


@pytest.mark.parametrize("damaged", ["rollouts", "answers"])
def test_damaged_inputs_are_named(run, fill, score, damaged):
    fill(run, n=60, empty=())
    path = run.require(damaged).files()[1]
    content = bytearray(path.read_bytes())
    footer = int.from_bytes(content[-8:-4], "little") + 8
    content[4:-footer] = bytes(len(content) - footer - 4)
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"{damaged}.*materialize '{damaged}' again"):
        score(run)


def test_the_causal_check_takes_no_scores_of_other_rollouts(run, fill, score, put, tiny_config):
    score(fill(run))
    check = stage_of("causal_check")
    materialize(check, CHECK, tiny_config, run)
    fill(run, n=9)
    with pytest.raises(
        ArtifactError, match=r"'neuron_scores' .*another 'rollouts' than the run's: materialize 'neuron_scores'"
    ):
        materialize(check, CHECK, tiny_config, run)
    put(run, "rollouts", model=tiny_config.model_copy(update={"dtype": "bfloat16"}), rollouts=[])
    with pytest.raises(ArtifactError, match="with other weights"):
        score(run)


def test_too_many_rollouts_that_cannot_be_scored_fail(run, fill, score):
    fill(run, n=8, empty=(0, 2, 3))
    with pytest.raises(ModelError, match=r"3 of 8 rollouts cannot be scored .*empty_response 3.*max_unscored_share"):
        score(run, max_unscored_share=0.3)
    assert run.find("neuron_scores") is None
    score(run, max_unscored_share=0.375)
