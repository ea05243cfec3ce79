"""What is made again after a change, and what is not: every setting and every room, stated as a table.

Stages named here are those that change of themselves; stages after them run again where the content of their inputs
turns out to differ.
"""

import pytest

from pipeline.chain import determining_settings
from pipeline.config import Config
from pipeline.fingerprint import reachable_code
from pipeline.stages import STAGES

SAMPLING = {"rollouts", "context_beliefs", "base_predictions", "sft_predictions", "distilled_predictions"}
PREDICTIONS = {"base_predictions", "sft_predictions", "distilled_predictions"}
ADAPTERS = {"distilled_adapter", "sft_adapter"}
LAYOUT = {"raw_pool", "pool", "tests"}
OWN = {spec.key: {spec.name} for spec in STAGES} | {"predictions": PREDICTIONS}

REMADE: dict[str, set[str]] = {
    # The layout of a pool is also how held-out questions are read.
    **{f"raw_pool.{name}": LAYOUT for name in Config().raw_pool.model_dump()},
    "raw_pool.max_quarantined_share": set(),
    # Sampled alike, so that they can be compared; contexts show the student's prompt.
    **{f"rollouts.{name}": SAMPLING for name in ("temperature", "top_p", "max_new_tokens")},
    **{
        f"rollouts.{name}": SAMPLING | {"teacher_contexts"}
        for name in ("instruction", "open_instruction", "permute_options")
    },
    # What bounds memory or judges a result changes none.
    "rollouts.batch_tokens": set(),
    "context_beliefs.batch_tokens": set(),
    "predictions.batch_tokens": set(),
    "neuron_scores.batch_tokens": set(),
    "neuron_scores.chunk_tokens": set(),
    "neuron_scores.max_unscored_share": set(),
    "causal_check.batch_tokens": set(),
    "neuron_scores.position": {"neuron_scores", "causal_check"},
    # Model cards say how the questions were chosen.
    **{f"curated_subset.{name}": {"curated_subset"} | ADAPTERS for name in Config().curated_subset.model_dump()},
    **{
        f"teacher_contexts.{name}": {"teacher_contexts", "distilled_adapter"}
        for name in Config().teacher_contexts.model_dump()
    },
}
"""Stages by setting; a setting that does not stand here changes its own stage."""


def changed(value):
    """Return another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, list):
        return [*value, "other"]
    return "other"


def settings():
    return [(section, name) for section, values in Config() if section != "model" for name in values.model_dump()]


@pytest.mark.parametrize(("section", "name"), settings(), ids=".".join)
def test_a_setting_remakes_what_reads_it_and_nothing_else(section, name):
    before = Config()
    own = getattr(before, section)
    after = before.model_copy(update={section: own.model_copy(update={name: changed(getattr(own, name))})})
    remade = {spec.name for spec in STAGES if determining_settings(spec, before) != determining_settings(spec, after)}
    assert remade == REMADE.get(f"{section}.{name}", OWN[section])


ROOMS = {}
"""Rooms whose code each stage can reach, besides the files of ``pipeline`` itself."""


@pytest.mark.parametrize("spec", STAGES, ids=lambda spec: spec.name)
def test_a_stage_reaches_the_rooms_that_it_needs_and_no_others(spec):
    modules = reachable_code(spec.modules).modules
    rooms = {name.split(".")[1] for name in modules if name.count(".") > 1 and name.startswith("pipeline.")}
    assert rooms == ROOMS[spec.name]
