"""The stage on disk: shards, bounded by their size, that survive a kill; weights that changed are noticed."""

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
from pipeline.artifacts import ArtifactStore
from pipeline.schemas import ARTIFACTS

from pipeline import chain
from pipeline.causal.config import CausalCheckConfig
from pipeline.correlation import rank_correlation
from pipeline.errors import ArtifactError, ModelError
from pipeline.model_config import ModelConfig
from pipeline.model_fingerprint import model_fingerprint
from pipeline.models import load_model
from pipeline.neurons.config import NeuronScoresConfig
from pipeline.neurons.score import NeuronScorer
from pipeline.paths import PROJECT_ROOT
from pipeline.rollouts.schemas import ROLLOUTS

N = 21
SECTION = NeuronScoresConfig(top_k=60, shard_rollouts=4, batch_tokens=64)
SCORES = tuple(ARTIFACTS["neuron_scores"])


@pytest.fixture
def model(tiny_folder):
    return ModelConfig(path=str(tiny_folder))


def fill(store, model, n=N, empty=(5,), n_samples=1):
    """Store ``n`` rollouts of random tokens, ``n_samples`` a question, those numbered ``empty`` without response."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "id": f"q{i // n_samples:02}", "sample": i % n_samples, "permutation": [], "stem_start": 1, "stem_stop": 4,
            "prompt_ids": rng.integers(9, 200, 5).tolist(), "response": "",
            "logprobs": [], "response_ids": [] if i in empty else rng.integers(9, 200, rng.integers(1, 12)).tolist(),
            "finish_reason": "stop", "extraction": "none",
        }
        for i in range(n)
    ]  # fmt: skip
    with store.write("rollouts", "rollouts", {"model": model_fingerprint(model)}) as writer:
        for start in range(0, n, 6):  # row groups that do not match the shards
            writer.append(
                "rollouts", pl.DataFrame(rows[start : start + 6], schema=pl.DataFrame(ROLLOUTS.empty_table()).schema)
            )
    return store


def files(store):
    root = store.root / "neuron_scores"
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*.parquet")) if path.is_file()}


def test_shards_hold_every_rollout_in_order(tmp_path, model):
    store = fill(ArtifactStore(tmp_path), model)
    manifest = chain.neuron_scores(store, model, SECTION).manifest
    assert manifest.rows == {table: 1 if table == "unscored_rollouts" else N - 1 for table in SCORES}
    assert manifest.notes["unscored"] == {"empty_response": 1}
    assert manifest.notes["scored"] == N - 1
    whole = NeuronScorer(load_model(model), SECTION.model_copy(update={"batch_tokens": 10_000}))
    expected = whole.score(store.read("rollouts")).neuron_scores
    assert store.read("neuron_scores").select("id", "neurons").equals(expected.select("id", "neurons"))
    used = expected["neurons"].explode(empty_as_null=False).n_unique()
    assert manifest.notes["model_utilization_index"] == pytest.approx(used / whole.n_neurons)
    for table in SCORES:
        assert [path.name for path in store.files("neuron_scores", table)] == [
            f"shard-{i:05}.parquet" for i in range(6)
        ]
    footer = pq.read_metadata(store.files("neuron_scores")[0]).metadata
    assert footer[b"fingerprint"].decode() == manifest.fingerprint
    assert int(footer[b"n_layers"]) * int(footer[b"d_mlp"]) == whole.n_neurons


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path, model):
    whole, killed = (fill(ArtifactStore(tmp_path / name), model) for name in ("whole", "killed"))
    chain.neuron_scores(whole, model, SECTION)
    program = f"""
import time
from pathlib import Path
from pipeline import chain
from pipeline.artifacts import ArtifactStore
from pipeline.config import ModelConfig, NeuronScoresConfig
from pipeline.neurons.score import NeuronScorer

score = NeuronScorer.score
NeuronScorer.score = lambda *arguments: (time.sleep(0.3), score(*arguments))[1]
store = ArtifactStore(Path({str(killed.root)!r}))
chain.neuron_scores(store, ModelConfig(path={model.path!r}), NeuronScoresConfig(**{SECTION.model_dump()!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", program], cwd=PROJECT_ROOT, stderr=subprocess.PIPE)
    second = killed.root / ".neuron_scores.part" / "unscored_rollouts.parquet" / "shard-00001.parquet"
    deadline = time.monotonic() + 120
    while not second.exists():
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert killed.manifest("neuron_scores") is None
    kept = second.stat().st_mtime_ns
    chain.neuron_scores(killed, model, SECTION)
    assert killed.files("neuron_scores", "unscored_rollouts")[1].stat().st_mtime_ns == kept
    assert files(killed) == files(whole)
    assert not (killed.root / ".neuron_scores.part").exists()


def test_the_size_of_shards_changes_no_row(tmp_path, model):
    store = fill(ArtifactStore(tmp_path), model)
    tables = []
    for shard_rollouts in (4, 1_000):
        chain.neuron_scores(store, model, SECTION.model_copy(update={"shard_rollouts": shard_rollouts}))
        tables.append(store.read("neuron_scores").select("id", "sample", "neurons"))
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize("shard_rollouts", [1, 2, 4, 7, 1_000])
def test_every_question_has_one_stem_row_whatever_the_shards(tmp_path, model, shard_rollouts):
    """Also where a shard begins within a question; none for the question whose sample 0 cannot be scored."""
    store = fill(ArtifactStore(tmp_path), model, empty=(6, 10), n_samples=3)
    chain.neuron_scores(store, model, SECTION.model_copy(update={"shard_rollouts": shard_rollouts}))
    expected = [f"q{question:02}" for question in range(N // 3) if question != 2]
    for table in ("stem_scores", "stem_states"):
        assert store.read("neuron_scores", table)["id"].to_list() == expected
    for table in ("neuron_scores", "neuron_sizes", "rationale_scores"):
        assert store.read("neuron_scores", table).height == N - 2


def test_sizes_that_follow_the_length_of_responses_are_warned_of(tmp_path, model):
    store = fill(ArtifactStore(tmp_path), model)
    notes = chain.neuron_scores(store, model, SECTION).manifest.notes
    sizes = store.read("neuron_scores", "neuron_sizes")
    rho = rank_correlation(sizes["n_neurons"], sizes["n_response_tokens"])
    assert notes["rank_correlation_of_support"]["n_response_tokens"] == pytest.approx(rho)
    assert rho < -0.5
    assert f"smaller neuron sets (rank correlation of mean |N| with mean response tokens {rho:.2f}" in notes["warning"]


def test_weights_changed_under_the_same_name_are_noticed(tmp_path, model, tiny):
    store = fill(ArtifactStore(tmp_path / "store"), model)
    changed = tmp_path / "model"
    with torch.no_grad():
        loaded = load_model(model)
        loaded.model.model.layers[0].mlp.down_proj.weight[0, 0] += 1
    loaded.model.save_pretrained(changed)
    tiny.tokenizer.save_pretrained(changed)
    with pytest.raises(ArtifactError, match=r"sampled with other weights.*materialize 'rollouts' again"):
        chain.neuron_scores(store, ModelConfig(path=str(changed)), SECTION)
    assert store.manifest("neuron_scores") is None


def test_settings_that_change_nothing_lose_no_work(tmp_path, model, monkeypatch):
    store = fill(ArtifactStore(tmp_path), model, n=8, empty=(0, 2, 3))
    with pytest.raises(ModelError, match="3 of 8 rollouts cannot be scored"):
        chain.neuron_scores(store, model, SECTION.model_copy(update={"max_unscored_share": 0.3}))
    monkeypatch.setattr(NeuronScorer, "score", None)  # nothing is scored again
    lenient = SECTION.model_copy(update={"max_unscored_share": 0.4, "batch_tokens": 9, "chunk_tokens": 3})
    assert not chain.neuron_scores(store, model, lenient).cached
    assert chain.neuron_scores(store, model.model_copy(update={"dtype": "float32"}), SECTION).cached
    with pytest.raises(ModelError, match="3 of 8 rollouts cannot be scored"):
        chain.neuron_scores(store, model, SECTION.model_copy(update={"max_unscored_share": 0.3}))


def test_damaged_rollouts_are_named(tmp_path, model):
    store = fill(ArtifactStore(tmp_path), model)
    path = store.path("rollouts")
    content = bytearray(path.read_bytes())
    content[100:-3000] = bytes(len(content) - 3100)
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"rollouts.*materialize 'rollouts' again"):
        chain.neuron_scores(store, model, SECTION)


def test_the_causal_check_takes_no_scores_of_other_rollouts(tmp_path, model):
    store = fill(ArtifactStore(tmp_path), model)
    chain.neuron_scores(store, model, SECTION)
    chain.causal_check(store, model, CausalCheckConfig(n_questions=4, top_n=5, n_resamples=100))
    fill(store, model, n=9)
    with pytest.raises(ArtifactError, match="is of other rollouts"):
        chain.causal_check(store, model, CausalCheckConfig(n_questions=4, top_n=5, n_resamples=100))
    with store.write("rollouts", "rollouts", {"model": "other"}):
        pass
    with pytest.raises(ArtifactError, match="sampled with other weights"):
        chain.causal_check(store, model, CausalCheckConfig(n_questions=4, top_n=5, n_resamples=100))


def test_too_many_rollouts_that_cannot_be_scored_fail(tmp_path, model):
    store = fill(ArtifactStore(tmp_path), model, n=8, empty=(0, 2, 3))
    with pytest.raises(ModelError, match=r"3 of 8 rollouts cannot be scored .*empty_response 3.*max_unscored_share"):
        chain.neuron_scores(store, model, SECTION.model_copy(update={"max_unscored_share": 0.3}))
    assert store.manifest("neuron_scores") is None
    chain.neuron_scores(store, model, SECTION.model_copy(update={"max_unscored_share": 0.375}))
