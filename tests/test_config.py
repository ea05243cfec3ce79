"""Configuration: presets load, misspelt keys name the nearest, every field is documented."""

import pytest

from pipeline.adapters.config import DistillationConfig
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.model_config import ModelConfig
from pipeline.presets import PRESETS, load_config
from pipeline.section import Section


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_presets_load(preset):
    assert isinstance(load_config(preset), Config)


def test_published_preset_has_the_published_settings():
    config = load_config("qwen3-4b-sciknoweval")
    assert (config.rollouts.n_samples, config.rollouts.temperature, config.rollouts.top_p) == (5, 0.6, 0.95)
    chosen_by = (config.curated_subset.rule, config.teacher_contexts.builder, config.context_beliefs.n_samples)
    assert chosen_by == ("neuron_support", "neuron_overlap", 0)
    adapter = config.distilled_adapter
    assert (adapter.lora_rank, adapter.lora_alpha, adapter.learning_rate, adapter.steps) == (16, 32, 2.5e-6, 250)
    assert (adapter.teacher, adapter.ema_decay, adapter.trajectories_per_step) == ("ema", 0.995, 4)


def test_questions_are_chosen_by_the_contexts_that_they_are_trained_with():
    config = load_config(overrides=["teacher_contexts.builder=lexical", "teacher_contexts.n_demonstrations=1"])
    assert (config.context_beliefs.builder, config.context_beliefs.n_demonstrations) == ("lexical", 1)
    assert config.context_beliefs.max_teacher_tokens == config.teacher_contexts.max_teacher_tokens == 512
    other = load_config(overrides=["teacher_contexts.builder=lexical", "context_beliefs.builder=none"])
    assert (other.context_beliefs.builder, other.teacher_contexts.builder) == ("none", "lexical")


def test_the_rival_samples_and_is_taught_as_the_distilled_adapter_unless_told_otherwise():
    config = load_config(overrides=["distilled_adapter.temperature=0.7", "rival_adapter.teacher=live"])
    rival, distilled = config.rival_adapter, config.distilled_adapter
    assert (rival.temperature, rival.max_new_tokens, rival.teacher) == (0.7, distilled.max_new_tokens, "live")
    assert (rival.objective, rival.learning_rate) == ("sft", 3e-3)  # what is its own


def test_the_ceiling_is_trained_as_the_distilled_adapter_unless_told_otherwise():
    config = load_config(overrides=["distilled_adapter.steps=7", "ceiling_adapter.micro_batch=2"], seed=3)
    shared = DistillationConfig.model_fields.keys() - {"objective", "micro_batch"}
    ceiling, distilled = (
        section.model_dump(include=shared) for section in (config.ceiling_adapter, config.distilled_adapter)
    )
    assert ceiling == distilled
    assert (ceiling["steps"], ceiling["seed"], distilled["learning_rate"]) == (7, 3, 1e-3)
    assert (config.ceiling_adapter.micro_batch, config.distilled_adapter.micro_batch) == (2, 16)
    assert (config.ceiling_adapter.objective, config.ceiling_adapter.enabled) == ("gold_context", False)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rollots.n_samples=3"], "unknown key 'rollots', did you mean 'rollouts'"),
        (["rollouts.n_sample=3"], "did you mean 'n_samples'"),
        (["rollouts.n_samples=0"], "rollouts.n_samples = 0"),
        (["raw_pool.instruction=Go"], "did you mean 'rollouts.instruction'"),
        (["neuron_scores.unit=relu"], "neuron_scores.unit = 'relu'"),
        (
            ["curated_subset.rule=neuron_suport"],
            "did you mean 'neuron_support'? Use 'neuron_support', 'neuron_support_",
        ),
        (["teacher_contexts.builder=overlap"], "did you mean 'stem_overlap'? Use 'neuron_overlap', 'rationale_"),
        (["context_beliefs.n_samples=0"], "'confident_shift' reads what the model answers with the teacher's context"),
        (["n_samples"], "not of the form section.key=value"),
    ],
)
def test_bad_overrides_are_one_clear_line(overrides, message):
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_words_that_yaml_once_took_for_booleans_are_words():
    config = load_config(overrides=["distilled_adapter.guard=off", "ceiling_adapter.enabled=true"])
    assert (config.distilled_adapter.guard, config.ceiling_adapter.enabled) == ("off", True)
    assert not load_config(overrides=["ceiling_adapter.enabled=no"]).ceiling_adapter.enabled


def test_unknown_preset_names_the_known():
    with pytest.raises(ConfigError, match="reference"):
        load_config("refrence")


def test_overrides_and_seed_apply():
    config = load_config(overrides=["rollouts.n_samples=3", "curated_subset.rule=random"], seed=7)
    assert (config.rollouts.n_samples, config.curated_subset.rule) == (3, "random")
    assert {config.rollouts.seed, config.distilled_adapter.seed, config.evaluation.seed, config.predictions.seed} == {7}


def sections():
    return [ModelConfig, *(f.annotation for f in Config.model_fields.values() if issubclass(f.annotation, Section))]


@pytest.mark.parametrize("section", sections(), ids=lambda s: s.__name__)
def test_every_field_is_documented(section):
    assert all(field.description for field in section.model_fields.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["distilled_adapter.micro_batch=3"], "adapter.micro_batch = 3 does not divide .* = 16: .* such as 2"),
        (["rival_adapter.processes=3"], "rival_adapter.processes = 3 does not divide trajectories_per_step = 16"),
        (["rival_adapter.processes=2"], "micro_batch = 16 does not divide .* = 16 / processes = 8: .* such as 8"),
        (["rival_adapter.objective=grpo", "rival_adapter.num_generations=3"], "= 3 does not divide .* of 2, 4, 8, 16$"),
        (
            [f"rival_adapter.{name}" for name in ("objective=grpo", "trajectories_per_step=1", "micro_batch=1")],
            "num_generations = 4 does not divide .* take more trajectories",
        ),
        (["ceiling_adapter.enabled=true", "ceiling_adapter.micro_batch=5"], "ceiling_adapter.micro_batch = 5 does not"),
    ],
)
def test_a_step_that_does_not_come_out_even_is_refused_before_anything_is_made(changes, message):
    with pytest.raises(ConfigError, match=message):
        load_config(overrides=changes)


def test_what_is_not_trained_need_not_come_out_even():
    changes = ["rival_adapter.enabled=false", "rival_adapter.micro_batch=3"]
    assert load_config(overrides=changes).rival_adapter.micro_batch == 3
