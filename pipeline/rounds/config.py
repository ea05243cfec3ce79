"""Settings of rounds: what a round's model may be like before the next one does not start from it."""

from typing import ClassVar

from pydantic import Field

from pipeline.section import Section


class RoundsConfig(Section):
    """The model that a round leaves, and the limits of the drift gate; none of these changes a result.

    They stand where a model is broken or does harm, not where it merely differs: to differ is what a round is for. How
    far length, clipping, entropy, variety and agreement may go is said once, for training and rounds alike, by
    ``distilled_adapter.guard_*``.
    """

    immaterial: ClassVar[frozenset[str]] = frozenset(
        {
            *("max_abstention_rise", "min_kept_answers", "max_belief_shift", "min_neuron_overlap", "max_mui_factor"),
            *("gold_may_refuse", "max_accuracy_loss", "max_ece_rise"),
        }
    )

    max_abstention_rise: float = Field(default=0.2, gt=0, le=1)
    """How much the share of responses without a readable answer may rise; as ``pipeline.answers.early`` warns: of five
    samples one is lost for the vote."""
    min_kept_answers: float = Field(default=0.4, ge=0, lt=1)
    """Share of the pool's questions, of those with a majority before and after, that must keep their majority answer.
    Own choice: the embedded world, taught wrong on purpose, keeps 0.7; a model that answers at random keeps 0.25 of
    four options."""
    max_belief_shift: float = Field(default=0.5, gt=0, le=0.693)
    """Jensen-Shannon divergence of a question's answers before and after (nats; ln 2 = 0.693 where they share none),
    mean over the pool. Own choice: a good round of the embedded world shifts 0.2."""
    min_neuron_overlap: float = Field(default=0.1, ge=0, lt=1)
    """Jaccard similarity of a question's neuron sets before and after, mean over the pool."""
    max_mui_factor: float = Field(default=2.0, gt=1)
    """How many times more or fewer neurons a question's responses may use (model utilization, arXiv 2504.07440)."""
    gold_may_refuse: bool = False
    """Whether the tests' gold answers may refuse a model, too. False keeps the label firewall whole between rounds:
    gold is told beside the verdict and decides nothing. True lets a bit a round through, and makes the figures of later
    rounds on these tests flattering."""
    max_accuracy_loss: float = Field(default=0.05, gt=0, le=1)
    """Loss of accuracy on the tests, against the round's own base and, out of domain, against the first model too, so
    that small losses do not add up."""
    max_ece_rise: float = Field(default=0.05, gt=0, le=1)
    """Rise of the in-domain calibration error against the round's own base."""
