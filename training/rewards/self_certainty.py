"""Self-certainty: how far the model's next-token distributions are from uniform (Intuitor, arXiv 2505.19590)."""

from collections.abc import Sequence

from training.judge import Judge
from training.rewards.reward import Response


def self_certainty(responses: Sequence[Response], _judge: Judge) -> list[float]:
    """Return the mean over each response's tokens of KL(uniform, p) over the vocabulary (nats).

    p is of the logits that the response was drawn by, at temperature 1.
    """
    return [each.self_certainty for each in responses]
