"""In which order a question's options are shown to each of its rollouts."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from random import Random

from pipeline.rollouts.config import RolloutsConfig
from pipeline.seeding import derive_seed


def shown_orders(
    question: str, permutation: Sequence[int], config: RolloutsConfig
) -> Mapping[tuple[int, ...], list[int]]:
    """Return the samples of a question by the order that they see: the index of the option at each letter.

    All see the pool's ``permutation``, unless ``config.permute_options``: then each has an order of its own, drawn from
    the run's seed, the id of the ``question`` and the sample.
    """
    orders = defaultdict(list)
    for sample in range(config.n_samples):
        order = permutation
        if config.permute_options:
            rng = Random(derive_seed(config.seed, "options", question, sample))
            order = rng.sample(range(len(permutation)), len(permutation))
        orders[tuple(order)].append(sample)
    return orders
