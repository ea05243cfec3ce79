"""What a response is worth without any label: a function for each reward, found by its name in the settings.

A new reward is one function of ``training.rewards.reward.Reward`` and one line in ``REWARDS``.
"""

from collections.abc import Mapping
from typing import Final

from training.rewards.majority import majority
from training.rewards.reward import Reward
from training.rewards.self_certainty import self_certainty
from training.rewards.self_judge import self_judge

REWARDS: Final[Mapping[str, Reward]] = {
    "majority": majority,
    "self_certainty": self_certainty,
    "self_judge": self_judge,
}
"""Rewards by the name that stands in ``rival_adapter.reward``."""
