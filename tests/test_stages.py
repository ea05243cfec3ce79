"""The list of stages: what follows from it, and that its declarations belong together."""

from pipeline.config import Config
from pipeline.fingerprint import reachable_code
from pipeline.paths import PROJECT_ROOT
from pipeline.stage import resolve
from pipeline.stages import CATALOGUE, STAGES, describe_stages, stage_of


def test_stages_read_what_stages_before_them_make():
    made: set[str] = set()
    for spec in STAGES:
        assert {*spec.inputs, *spec.after} <= made, spec.name
        assert all(stage_of(stage).name in {stage_of(name).name for name in made} for stage in spec.reads), spec.name
        made |= set(spec.artifacts)
    assert made == set(CATALOGUE)


def test_sections_are_those_of_the_configuration():
    sections = {name: type(section) for name, section in Config()}
    assert {spec.key: spec.section for spec in STAGES} == {
        k: v for k, v in sections.items() if k not in ("model", "checks")
    }
    for spec in STAGES:
        for stage, kind in spec.reads.items():
            section = stage_of(stage).section
            assert issubclass(section, kind), (spec.name, stage)
            # These would be those of whoever made the artifact first.
            assert not section.immaterial & set(kind.model_fields), (spec.name, stage)


def test_references_lead_to_functions():
    for spec in STAGES:
        plots = [spec.plot, *(companion.plot for companion in spec.companions.values())]
        for reference in (spec.run, spec.sources, spec.gate, *plots):
            assert reference is None or callable(resolve(reference)), reference


def test_only_evaluation_and_the_ceiling_read_gold_and_the_ceiling_says_so():
    readers = {
        labels: {spec.name for spec in STAGES if labels in (*spec.inputs, *spec.after)}
        for labels in ("gold_labels", "test_labels")
    }
    assert readers == {"gold_labels": {"ceiling_adapter", "evaluation"}, "test_labels": {"evaluation"}}
    assert not Config().ceiling_adapter.enabled
    marked = [spec.name for spec in STAGES if "from gold answers" in spec.description]
    assert marked == ["ceiling_adapter", "ceiling_predictions"]
    fed = {spec.name for spec in STAGES if {"ceiling_adapter", "ceiling_predictions"} & {*spec.inputs, *spec.after}}
    assert fed == {"ceiling_predictions", "evaluation"}
    assert not any("quarantine" in spec.inputs for spec in STAGES)  # refused rows are kept as they are, answers too


def test_code_of_stages_reaches_neither_the_list_nor_declarations():
    for spec in STAGES:
        modules = set(reachable_code(spec.modules(getattr(Config(), spec.key))).modules)
        assert not modules & {"pipeline.config", "pipeline.stages", "pipeline.chain"}, spec.name
        assert {name for name in modules if name.endswith(".stage")} == {"pipeline.stage"}, spec.name


def test_the_documentation_lists_the_stages():
    assert describe_stages() in (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
