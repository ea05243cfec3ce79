"""Fingerprints: what must make a stage run again does."""

from pathlib import Path

from pipeline.artifacts import ArtifactStore
from pipeline.digests import digest_json
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.evaluate import _command
from pipeline.paths import PROJECT_ROOT
from pipeline.pool.config import RawPoolConfig
from pipeline.pool.source import Source
from pipeline.stage import _CODE, INPUTS, Stage


def test_files_of_one_name_are_told_apart(tmp_path):
    paths = [tmp_path / folder / "test.jsonl" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        path.write_text(path.parent.name)

    def fingerprint(files: list[Path]) -> str:
        sources = [Source(path.name, path) for path in files]
        return digest_json(Stage("raw_pool", ArtifactStore(tmp_path), RawPoolConfig(), sources=sources).provenance())

    before = fingerprint(paths)
    paths[0].write_text("changed")
    assert fingerprint(paths) != before


def test_every_stage_names_its_code():
    assert set(_CODE) == set(INPUTS)
    assert all((PROJECT_ROOT / folder).is_dir() for folders in _CODE.values() for folder in folders)


def test_the_reported_command_states_what_differs_from_the_default(tmp_path):
    from pipeline.presets import load_config

    config = load_config(overrides=["rollouts.n_samples=3"])
    store = ArtifactStore(tmp_path)
    for name in INPUTS:
        if name != "evaluation":
            with store.write(name, "f", {"config": getattr(config, name).model_dump(mode="json")}):
                pass
    section = EvaluationConfig(limit=7)
    assert _command(store, config.model, config.evaluation) == "python -m assets --set rollouts.n_samples=3"
    assert _command(store, config.model, section) == (
        "python -m assets --set evaluation.limit=7 --set rollouts.n_samples=3"
    )
