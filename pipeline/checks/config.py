"""Limits of the checks; none of them changes a result."""

from typing import ClassVar

from pydantic import Field

from pipeline.section import Section


class ChecksConfig(Section):
    """What a result may be like before a check says so."""

    immaterial: ClassVar[frozenset[str]] = frozenset(
        {
            *("max_dropped_share", "min_test_questions", "max_abstention", "max_truncated", "min_majority_share"),
            *("max_same_size", "min_selected_share", "max_examples_dropped", "max_ece_rise", "max_accuracy_loss"),
        }
    )

    max_dropped_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the raw questions that near-duplicates and contamination may cost. Own choice: a pool of which half goes
    is a pool of copies, or the comparison is too coarse for its templates."""
    min_test_questions: int = Field(default=100, ge=1)
    """Questions of a test. Own choice: with 100 an accuracy is known to 10 points (95 % interval), with fewer to less
    than what methods differ by."""
    max_abstention: float = Field(default=0.2, ge=0, le=1)
    """Share of the responses without a readable answer; as the early look at them (``pipeline.answers.early``): of five
    samples one is lost for the vote."""
    max_truncated: float = Field(default=0.2, ge=0, le=1)
    """Share of the responses that the length limit cut; likewise."""
    min_majority_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the questions with a majority. Own choice: the others can be no worked examples."""
    max_same_size: float = Field(default=0.9, gt=0, le=1)
    """Share of the scored responses whose neuron sets have one and the same size |N|. Own choice: what is left to rank
    by then are ties (method, section 3: nearly every set has K members when sets are merged before the cut)."""
    min_selected_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the questions asked for that must have been chosen. Own choice: with less the rule could not score most
    of the pool."""
    max_examples_dropped: float = Field(default=0.2, ge=0, le=1)
    """Share of the worked examples that may be left out because they do not fit. Own choice: of five examples one."""
    max_ece_rise: float = Field(default=0.03, gt=0, le=1)
    """Rise of the calibration error over the untouched model's, where its interval lies above zero; as the margin of
    the studies (docs/studies). The drift gate tells the rise of a round in domain by it (``pipeline.rounds``)."""
    max_accuracy_loss: float = Field(default=0.03, gt=0, le=1)
    """Loss of accuracy against the untouched model, where its interval lies below zero; likewise, and in rounds out of
    domain against the first model too, so that small losses do not add up."""
