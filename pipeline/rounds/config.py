"""Settings of rounds: what a round's model may be like before the next one does not start from it."""

from typing import ClassVar

from pydantic import Field

from pipeline.section import Section


class RoundsConfig(Section):
    """The model that a round leaves, and the limits of the drift gate; none of these changes a result.

    They stand where a model is broken, not where it merely differs: to differ is what a round is for. How far length,
    clipping, entropy, variety and agreement may go is said once, for training and rounds alike, by
    ``distilled_adapter.guard_*``; what accuracy and calibration on the tests may lose, by ``checks``.
    """

    immaterial: ClassVar[frozenset[str]] = frozenset(
        {
            *("max_abstention_rise", "min_kept_answers", "max_belief_shift", "min_neuron_overlap", "max_mui_factor"),
            "gold_may_refuse",
        }
    )

    max_abstention_rise: float = Field(default=0.2, gt=0, le=1)
    """How much the share of responses without a readable answer may rise; as ``pipeline.answers.early`` warns: of five
    samples one is lost for the vote."""
    min_kept_answers: float = Field(default=0.4, ge=0, lt=1)
    """Share of the pool's questions, of those with a majority before and after, that must keep their majority answer.
    Own choice: the first round of the embedded world, which unlearns answers taught wrong, keeps 0.72; a model that
    guesses keeps 0.25 of four options."""
    max_belief_shift: float = Field(default=0.5, gt=0, le=0.693)
    """Jensen-Shannon divergence of a question's answers before and after (nats; ln 2 = 0.693 where they share none),
    mean over the pool. Own choice: that first round shifts 0.20, a collapse by GRPO 0.61."""
    min_neuron_overlap: float = Field(default=0.2, ge=0, lt=1)
    """Jaccard similarity of a question's neuron sets before and after, mean over the pool. Own choice: that first round
    leaves 0.76, the collapse 0.05; random sets of that size share 0.10."""
    max_mui_factor: float = Field(default=2.0, gt=1)
    """How many times more or fewer neurons a question's responses may use (model utilization, arXiv 2504.07440). Own
    choice: 1.07 and 0.22 times in these two cases."""
    gold_may_refuse: bool = False
    """Whether the tests' gold answers may refuse a model, too. False keeps the label firewall whole between rounds:
    gold is told beside the verdict and decides nothing. True lets a bit a round through, and makes the figures of later
    rounds on these tests flattering."""
