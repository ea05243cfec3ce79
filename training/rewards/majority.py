"""Agreement with the majority: 1 for the answer that most responses of the group state (TTRL, arXiv 2504.16084).

The majority is the group's own, of the samples that are being rewarded, as in TTRL: the target moves with the model,
and what the stored votes say is of no account. A tie between leading answers is no majority: as in the stage
``pseudo_labels``, nothing is rewarded then. TTRL takes the first of them.
"""

from collections import Counter
from collections.abc import Sequence

from training.judge import Judge
from training.rewards.reward import Response


def majority(responses: Sequence[Response], _judge: Judge) -> list[float]:
    """Return 1 for a response that states its group's majority answer, else 0."""
    leading = {question: _leading(counts) for question, counts in votes(responses).items()}
    return [float(each.answer is not None and each.answer == leading[each.question]) for each in responses]


def votes(responses: Sequence[Response]) -> dict[str, Counter[str]]:
    """Return how often each answer is stated to each question; abstentions do not count."""
    counts = {each.question: Counter[str]() for each in responses}
    for each in responses:
        if each.answer is not None:
            counts[each.question][each.answer] += 1
    return counts


def agreement(responses: Sequence[Response]) -> float:
    """Return the share of responses that state a leading answer of their group."""
    return sum(max(counts.values(), default=0) for counts in votes(responses).values()) / len(responses)


def distinct_answers(responses: Sequence[Response]) -> float:
    """Return the different answers to all questions, by the responses."""
    return len({each.answer for each in responses} - {None}) / len(responses)


def _leading(counts: Counter[str]) -> str | None:
    ranked = counts.most_common(2)
    is_tie = len(ranked) == 2 and ranked[0][1] == ranked[1][1]
    return None if is_tie or not ranked else ranked[0][0]
