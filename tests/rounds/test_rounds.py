"""Rounds on a slice of the embedded world, with a model that is broken on purpose: real sampling and training."""

import shutil
import signal
import subprocess
import sys
import time

import dagster as dg
import polars as pl
import pytest

from assets import build_definitions
from assets.keys import artifact_of, asset_key
from assets.rounds import build_rounds
from pipeline import chain
from pipeline.errors import ArtifactError
from pipeline.model_config import ModelConfig
from pipeline.model_fingerprint import model_fingerprint
from pipeline.paths import PROJECT_ROOT
from pipeline.presets import load_config
from pipeline.rollouts.sample import sample_rollouts
from pipeline.rounds.__main__ import main
from pipeline.rounds.record import read_drift, read_rounds, run_after, run_of
from pipeline.rounds.run import run_rounds
from pipeline.stages import open_store

pytestmark = pytest.mark.slow
SLICE = (
    "raw_pool.limit=40",
    "rollouts.n_samples=2",
    "context_beliefs.n_samples=1",
    "teacher_lift.n_questions=0",
    "distilled_adapter.steps=2",
    "distilled_adapter.trajectories_per_step=4",
    "distilled_adapter.micro_batch=4",
    "rival_adapter.enabled=false",
    "tests.limit=12",
    "predictions.n_samples=2",
    "evaluation.n_resamples=100",
)
BROKEN = (*SLICE, "distilled_adapter.learning_rate=0.3", "distilled_adapter.guard='off'")


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Two rounds: the first trains at a rate that leaves no model, the second as it should."""
    rounds = open_store(tmp_path_factory.mktemp("data")).run("many")
    run_rounds(load_config(overrides=BROKEN), rounds, 1)
    run_rounds(load_config(overrides=SLICE), rounds, 2)
    return rounds


def call(rounds, n_rounds, *settings):
    sets = [word for setting in settings for word in ("--set", setting)]
    return ["--run", rounds.name, "--store", str(rounds.store.root), "--rounds", str(n_rounds), *sets]


def test_a_collapsed_model_is_refused_and_the_next_round_begins_with_the_last_good_one(judged):
    first, second = read_rounds(judged).to_dicts()
    assert (first["promoted"], second["promoted"]) == (False, True)
    assert first["base"] == second["base"] == 0
    assert first["base_model"] == second["base_model"] == model_fingerprint(ModelConfig())
    assert first["model"] != second["model"]
    assert first["verdict"].startswith("refused: responses without an answer (share) ")
    strains = {number: drift["strain"].max() for (number,), drift in read_drift(judged).group_by("round")}
    assert strains[1] > 1 > strains[2]
    promoted = judged.require("merged_model")
    assert promoted.folder == run_of(judged, 2).require("merged_model").folder
    assert model_fingerprint(ModelConfig(path=str(promoted.folder / "model"))) == second["model"]


def test_models_are_asked_once_and_what_the_first_one_said_is_kept(judged):
    one, two = run_of(judged, 1), run_of(judged, 2)
    for name in ("rollouts", "answers", "neuron_scores", "base_predictions"):
        assert one.require(name).folder == two.require(name).folder  # of the same model
    assert run_after(judged, 1).require("rollouts").folder != one.require("rollouts").folder
    seeds = [run.require("distilled_adapter").manifest.settings["seed"] for run in (one, two)]
    assert seeds == [0, 1]


def test_a_round_after_a_promoted_one_begins_with_its_model_and_its_answers(judged, monkeypatch):
    """As far as curation: of an unchanged pool nothing is sampled again, of a changed one what is new, all is kept."""
    begun, asked = [], []

    def up_to_votes(config, run, last="pseudo_labels", means=None):
        begun.append((config.model, chain.run_chain(config, run, last)))
        raise KeyboardInterrupt

    def sample(chosen, *arguments):
        asked.extend(chosen["id"])
        return sample_rollouts(chosen, *arguments)

    monkeypatch.setattr("pipeline.rounds.run.run_chain", up_to_votes)
    monkeypatch.setattr("pipeline.rollouts.run.sample_rollouts", sample)
    for limit in (40, 42):
        with pytest.raises(KeyboardInterrupt):
            run_rounds(load_config(overrides=[*SLICE, f"raw_pool.limit={limit}"]), judged, 3)
    (model, outcomes), (again, _) = begun
    assert model_fingerprint(model) == model_fingerprint(again) == read_rounds(judged)["model"][1]
    assert all(outcome.cached for outcome in outcomes.values())
    assert read_rounds(judged).height == 2
    before, pools = (
        run_after(judged, 2),
        [run.require("pool").read()["id"] for run in (run_after(judged, 2), run_of(judged, 3))],
    )
    assert sorted(set(asked)) == sorted(set(pools[1]) - set(pools[0]))
    assert asked
    old, new = (run.require("rollouts") for run in (before, run_of(judged, 3)))
    assert new.read().filter(pl.col("id").is_in(pools[0].implode())).equals(old.read())
    assert all(
        run.require("rollouts").is_intact(thorough=True) for run in (run_of(judged, 2), before)
    )  # to compare with


def test_what_was_judged_stands_and_is_told(judged, monkeypatch, capsys):
    monkeypatch.setattr("pipeline.rounds.run.run_chain", None)
    assert main(call(judged, 2, *SLICE)) == 0
    printed = capsys.readouterr().out
    assert printed.startswith((judged.folder / "rounds.md").read_text())
    table = [line.split(" | ") for line in printed.splitlines() if line.startswith("| ")]
    assert [(row[0], row[1], row[-1]) for row in table[1:]] == [
        ("| 0 (first model)", "-", " |"),
        ("| 1", "0", "refused |"),
        ("| 2", "0", "promoted |"),
    ]
    assert "Rounds after round 2 did not help" in printed
    assert "Made with other settings than now, and left as they are: 1." in printed
    assert (judged.folder / "rounds.png").read_bytes().startswith(b"\x89PNG")


def test_user_errors_are_one_line(tmp_path, capsys):
    (tmp_path / "runs" / "old").mkdir(parents=True)
    pl.DataFrame({"round": [1]}).write_parquet(tmp_path / "runs" / "old" / "rounds.parquet")
    wrong = {
        "--rounds 0: give the number": ["--rounds", "0"],
        "did you mean 'max_mui_factor'": ["--set", "rounds.max_mui_facto=3"],
        "is of other code: remove run 'old'": ["--run", "old"],
    }
    for message, options in wrong.items():
        assert main(["--store", str(tmp_path), *options]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert message in line


def trained(judged, root):
    """Return the rounds in another store, as they were when the first was trained and nothing merged yet."""
    shutil.copytree(judged.store.root, root, symlinks=True)
    rounds = open_store(root).run(judged.name)
    (run_of(rounds, 1).folder / "merged_model").rename(merged := run_after(rounds, 1).folder / "merged_model")
    before = {link.resolve() for link in run_of(rounds, 1).folder.iterdir()}
    for link in run_after(rounds, 1).folder.iterdir():
        if link.is_symlink() and link.resolve() not in before:
            shutil.rmtree(link.resolve())
    assert not merged.exists()
    for folder in rounds.store.runs.iterdir():
        if folder != run_of(rounds, 1).folder:
            folder.unlink() if folder.is_symlink() else shutil.rmtree(folder)
    return rounds


def test_killed_before_it_is_judged_a_round_goes_on_to_the_same_bytes(judged, tmp_path):
    rounds = trained(judged, tmp_path / "data")
    command = [sys.executable, "-m", "pipeline.rounds", *call(rounds, 1, *BROKEN)]
    process = subprocess.Popen(command, cwd=PROJECT_ROOT, stderr=subprocess.DEVNULL)
    while not (run_of(rounds, 1).folder / "merged_model").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert read_rounds(rounds).is_empty()
    run_rounds(load_config(overrides=BROKEN), rounds, 1)
    for name in ("rounds", "drift"):
        whole = pl.read_parquet(judged.folder / f"{name}.parquet").filter(pl.col("round") == 1)
        assert pl.read_parquet(rounds.folder / f"{name}.parquet").equals(whole)
    for make in (run_of, run_after):
        links = [link.name for link in make(judged, 1).folder.iterdir() if link.is_symlink()]
        digests = [{name: make(side, 1).require(name).manifest.digest for name in links} for side in (judged, rounds)]
        assert digests[0] == digests[1]


def test_a_promoted_model_that_was_changed_is_refused(judged, tmp_path):
    path = run_of(judged, 2).require("merged_model").folder / "model" / "config.json"
    content = path.read_bytes()
    path.write_bytes(content + b" ")
    try:
        with pytest.raises(ArtifactError, match=r"'merged_model' of run 'many-2' is damaged: materialize"):
            run_rounds(load_config(overrides=SLICE), judged, 3)
    finally:
        path.write_bytes(content)


def test_rounds_are_partitions_and_the_gate_a_blocking_check(judged):
    config = load_config(overrides=SLICE)
    definitions = dg.Definitions.merge(build_definitions("reference", config, "many"), build_rounds(config, "many"))
    chain_only = definitions.resolve_job_def("all_stages").asset_layer.executable_asset_keys
    rounds, promoted = (asset_key("many", name) for name in ("rounds", "promoted_model"))
    assert not {rounds, promoted} & set(chain_only)
    linked = judged.store.run("many-rounds")
    linked.folder.symlink_to(judged.folder)  # the UI's name for the rounds of this run
    for number in (1, 2):
        for make in (run_of, run_after):
            make(linked, number).folder.symlink_to(make(judged, number).folder)
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions("many-rounds", ["1", "2"])
        for partition, passes in (("1", False), ("2", True)):
            result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
                asset_selection=[rounds, promoted],
                partition_key=partition,
                run_config={"resources": {"store": {"config": {"root": str(judged.store.root)}}}},
                instance=instance,
                raise_on_error=False,
            )
            checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
            assert checks["drift"].passed == passes
            assert checks["drift"].description == read_rounds(judged)["verdict"][int(partition) - 1]
            shown = {artifact_of(event.asset_key) for event in result.get_asset_materialization_events()}
            assert shown == {"rounds", "promoted_model"} if passes else {"rounds"}
            assert result.success == passes
        assert instance.get_materialized_partitions(rounds) == {"1", "2"}
