"""In which order a question's options are shown to each of its rollouts."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from random import Random

from pipeline.seeding import derive_seed


def shown_orders(
    question: str, permutation: Sequence[int], n_samples: int, seed: int | None
) -> Mapping[tuple[int, ...], list[int]]:
    """Return the samples of a question by the order that they see: the index of the option at each letter.

    Without ``seed`` all see the pool's ``permutation``; with one, each has an order of its own, drawn from the seed,
    the id of the ``question`` and the sample.
    """
    orders = defaultdict(list)
    for sample in range(n_samples):
        order = permutation
        if seed is not None:
            rng = Random(derive_seed(seed, "options", question, sample))
            order = rng.sample(range(len(permutation)), len(permutation))
        orders[tuple(order)].append(sample)
    return orders
