"""The k nearest neuron sets: exact for pools of a usual size, by way of signatures for larger ones."""

from pipeline.retrieval.exact import nearest_exact
from pipeline.retrieval.sets import Nearest, NeuronSets
from pipeline.retrieval.sketch import nearest_sketched


def nearest_by_overlap(targets: NeuronSets, candidates: NeuronSets, k: int, exact_up_to: int = 50_000) -> Nearest:
    """Return the rows of the k candidates most similar to each target, and the Jaccard similarities, both ``[T, k]``.

    Most similar first, equal similarities by id; where there are fewer than k candidates the rest is index -1 and
    similarity 0. Nothing is excluded: a target that is a candidate finds itself. More than ``exact_up_to`` candidates
    are searched by signatures, which returns nearly the most similar with their exact similarities and needs faiss
    (ConfigError without it).
    """
    search = nearest_exact if len(candidates) <= exact_up_to else nearest_sketched
    return search(targets, candidates, k)
