"""The registry of objectives: all are there, each by itself, and none needs the pipeline's stages."""

import json
import subprocess
import sys

import pytest

from pipeline.adapters.config import TrainingConfig
from pipeline.errors import ConfigError
from pipeline.paths import PROJECT_ROOT
from training.objectives import OBJECTIVES, load_objective

FOLDER = PROJECT_ROOT / "training" / "objectives"


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_can_be_had_by_its_name(name):
    objective = load_objective(name)
    assert issubclass(objective.section, TrainingConfig)
    assert objective.inputs
    assert objective.title
    assert objective.summary


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_says_whether_it_read_gold(name):
    """Title and summary are what model card and report say of it."""
    objective = load_objective(name)
    reads_gold = name == "gold_context"
    assert ("gold_labels" in objective.inputs) == reads_gold
    assert ("gold" in objective.title) == reads_gold
    assert ("No gold label" in objective.summary) != reads_gold


def test_every_file_of_an_objective_is_in_the_registry():
    files = {f"training.objectives.{path.stem}" for path in FOLDER.glob("*.py")}
    assert files - {"training.objectives.__init__", "training.objectives.objective"} == set(OBJECTIVES.values())


@pytest.mark.parametrize("name", ["os", "training.objectives.sft", "objective", ""])
def test_only_names_of_the_registry_are_imported(name):
    with pytest.raises(ConfigError, match="is not known"):
        load_objective(name)


def test_a_job_imports_its_own_objective_and_nothing_of_stages_and_store():
    code = (
        "import json, sys, training.run\n"
        "from training.objectives import load_objective\n"
        "before = list(sys.modules)\n"
        "load_objective('sft')\n"
        "print(json.dumps([before, list(sys.modules)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, check=True, capture_output=True, text=True)
    before, after = map(set, json.loads(done.stdout))
    assert before & set(OBJECTIVES.values()) == set()
    assert after & set(OBJECTIVES.values()) == {OBJECTIVES["sft"]}
    parent = {f"pipeline.{name}" for name in "chain config presets stage stages store.store".split()}
    assert after & (parent | {"pipeline.adapters.stage", "pipeline.adapters.process", "matplotlib", "assets"}) == set()
