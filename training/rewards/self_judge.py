"""The model grades its own responses (self-rewarding, arXiv 2401.10020, with a probability in place of a grade).

The judge is the model as it stands, adapter included, so it changes with what it rewards.
"""

from collections.abc import Sequence

from training.judge import IS_RIGHT, Judge
from training.rewards.reward import Response


def self_judge(responses: Sequence[Response], judge: Judge) -> list[float]:
    """Return the probability of Yes when the model is asked whether the response's answer is right.

    A response that cannot be asked about, because the question does not fit the model, gets 0.
    """
    asked = [IS_RIGHT.format(prompt=each.prompt, response=each.text) for each in responses]
    return [share or 0.0 for share in judge.p_yes(asked)]
