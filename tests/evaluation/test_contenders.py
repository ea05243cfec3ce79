"""The list of contenders: every one is a stage, and tables can tell them apart."""

from pipeline.predictions.contenders import (
    CONTENDERS,
    DISTILLED,
    UNTOUCHED,
    compared,
    contender_of,
    differences,
    in_order,
)
from pipeline.stages import STAGES, stage_of


def test_every_contender_has_its_stages_and_the_evaluation_reads_them():
    evaluation = stage_of("evaluation")
    for contender in CONTENDERS:
        predictions = stage_of(contender.predictions)
        assert predictions.inputs == ("tests", *contender.adapter)
        assert contender.described in predictions.description
        assert {contender.predictions, *contender.adapter} <= set(evaluation.inputs)
    adapters = {spec.name for spec in STAGES if spec.group == "training"}
    assert adapters == {name for contender in CONTENDERS for name in contender.adapter}


def test_contenders_differ_in_all_that_people_tell_them_apart_by():
    for of in ("name", "label", "described", "color", "marker"):
        assert len({getattr(contender, of) for contender in CONTENDERS}) == len(CONTENDERS), of
    assert [contender.name for contender in CONTENDERS if contender.label is None] == ["rival"]


def test_a_label_that_is_nobodys_own_is_the_rivals():
    for contender in CONTENDERS:
        assert contender_of(contender.label or "grpo (self_certainty)") is contender


def test_the_distilled_model_is_set_against_those_before_it_and_those_after_it_against_it():
    labels = [contender.label or "sft" for contender in CONTENDERS]
    assert in_order([*reversed(labels), *labels]) == labels
    before, after = labels[: labels.index(DISTILLED)], labels[labels.index(DISTILLED) + 1 :]
    found = differences(labels)
    assert list(found.values()) == [(DISTILLED, other) for other in before] + [(one, DISTILLED) for one in after]
    assert [compared(name) for name in found] == list(found.values())
    assert [compared(label) for label in labels] == [None] * len(labels)
    assert differences([UNTOUCHED, "sft"]) == {}
    assert differences([DISTILLED]) == {}
