"""Presets: what they name can be there, and the chain gets through their data as far as it needs no model."""

import re

import pytest

from assets import run_name
from pipeline.answers.extract import extract_answer
from pipeline.chain import run_chain
from pipeline.paths import PROJECT_ROOT, resolve_path
from pipeline.presets import PRESETS, load_config

NAMES = sorted(path.stem for path in PRESETS.glob("*.yaml"))
QWEN = [name for name in NAMES if name.startswith("qwen3")]
HUB_MODEL = re.compile(r"[\w-]+/[\w.-]+")
HUB_FILES = re.compile(r"hf://datasets/[\w-]+/[\w.-]+(@[0-9a-f]{40})?/[\w/*.-]+\.(jsonl|parquet)")
SHARED = PROJECT_ROOT.parent / "shared" / "data"


def named(config):
    """Return the paths of questions that a preset reads."""
    paths = [config.raw_pool.path, *config.pool.decontaminate_against]
    paths += [] if config.pool.in_domain_share else [config.tests.in_domain_path]
    return paths + ([] if config.pool.out_of_domain else [config.tests.out_of_domain_path or config.raw_pool.path])


@pytest.mark.parametrize("name", NAMES)
def test_what_a_preset_names_is_in_the_project_or_on_the_hub(name):
    config = load_config(name)
    in_project = config.model.path.startswith("data/")  # some are made by the first run
    assert in_project or HUB_MODEL.fullmatch(config.model.path)
    assert all(path.startswith("data/") or HUB_FILES.fullmatch(path) for path in named(config))
    if name.startswith("reference"):
        assert all(resolve_path(path).exists() for path in (config.model.path, *named(config)))
    assert run_name(name) == run_name(f"some/folder/{name}.yaml") == name


@pytest.mark.parametrize("name", QWEN)
def test_a_preset_of_the_hub_tests_what_it_does_not_train_on(name):
    config = load_config(name)
    assert config.pool.in_domain_share > 0
    assert config.tests.out_of_domain_path in config.pool.decontaminate_against
    assert (config.model.chat_template, config.model.dtype) == ({}, "auto")


@pytest.mark.parametrize("name", QWEN)
def test_an_instruction_asks_for_what_is_read(name):
    """Both wordings of the card, answered to the letter."""
    prompting = load_config(name).rollouts
    assert '"answer": "C"' in prompting.instruction
    assert extract_answer('It melts first.\n\n"answer": "C"', ["red", "blue", "green"]).index == 2
    assert r"\boxed{}" in prompting.open_instruction
    assert extract_answer("It melts first, so the answer is $\\boxed{12}$.", ()).answer == "12"


@pytest.mark.slow
def test_the_published_files_get_through_pool_and_tests(run):
    pool, other = SHARED / "sciknoweval" / "biology_literature_QA.jsonl", SHARED / "mmlu_pro" / "test.parquet"
    if not pool.is_file() or not other.is_file():
        pytest.skip("published data sets are not here")
    paths = [f"raw_pool.path={pool}", f"pool.decontaminate_against=[{other}]", f"tests.out_of_domain_path={other}"]
    config, *others = (load_config(name, [*paths, "raw_pool.limit=300", "tests.limit=20"]) for name in QWEN)
    assert all(
        (other.raw_pool, other.pool, other.tests) == (config.raw_pool, config.pool, config.tests) for other in others
    )
    outcomes = run_chain(config, run, "tests")
    rows = outcomes["pool"].artifact.manifest.rows
    assert rows["pool"] + rows["dropped"] == 300
    tests = outcomes["tests"].artifact
    assert tests.manifest.rows == {"in_domain": 20, "out_of_domain": 20}
    assert tests.read("out_of_domain")["domain"].n_unique() > 5
