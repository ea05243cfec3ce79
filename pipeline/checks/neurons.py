"""Do neuron scores measure anything, and what else do they follow?"""

import polars as pl

from pipeline.checks.check import Evidence, Finding, at_most
from pipeline.correlation import WARNING_ABOVE
from pipeline.errors import ModelError
from pipeline.neurons.config import NeuronScoresConfig
from pipeline.neurons.unscored import check_unscored


def scored_share(evidence: Evidence) -> Finding:
    """Judge the share of responses that could not be scored, as the stage itself does before it stores anything."""
    section = NeuronScoresConfig.model_validate(evidence.section.model_dump())
    share = 1 - evidence.notes["scored"] / max(evidence.notes["rollouts"], 1)
    try:
        check_unscored(evidence.notes, section)
    except ModelError as error:
        return Finding(False, str(error), share, section.max_unscored_share)
    return Finding(True, f"{share:.1%} of the responses cannot be scored", share, section.max_unscored_share)


def hooks_fired(evidence: Evidence) -> Finding | None:
    """Judge that every layer was read: one whose contributions are all zero is one whose hook did not fire."""
    sizes = evidence.own.scan("neuron_sizes").select(layer_score="layer_scores").with_row_index("row")
    layers = (
        sizes.explode("layer_score", empty_as_null=False)
        .with_columns(layer=pl.int_range(pl.len()).over("row"))
        .group_by("layer")
        .agg(pl.col("layer_score").sum())
        .sort("layer")
        .collect(engine="streaming")
    )
    if layers.is_empty():
        return None
    silent = layers.filter(~(pl.col("layer_score") > 0))["layer"].to_list()
    found = f"{layers.height - len(silent)} of {layers.height} layers contributed"
    remedy = (
        f"layers {silent} were not read: the model's modules are not where they were looked for; report its "
        "architecture, or use one of those that tests/neurons/test_architecture.py builds"
    )
    return at_most(len(silent), 0, found, remedy)


def support_varies(evidence: Evidence) -> Finding | None:
    """Judge whether the sizes of neuron sets differ: equal ones cannot rank questions."""
    sizes = evidence.own.scan("neuron_sizes").group_by("n_neurons").len().collect()
    total = sizes["len"].sum()
    if not total:
        return None
    n_neurons, n_alike = sizes.sort("len", "n_neurons").row(-1)
    return at_most(
        n_alike / total,
        evidence.limits.max_same_size,
        f"{n_alike} of {total} neuron sets have {n_neurons} members",
        "|N| says nothing here, so neuron_support would choose at random: set neuron_scores.cut=entries, or another "
        "neuron_scores.top_k",
    )


def support_follows_length(evidence: Evidence) -> Finding | None:
    """Judge the rank correlation of |N| with response length."""
    return _follows(evidence, evidence.notes["rank_correlation_of_support"]["n_response_tokens"], "|N|")


def score_follows_length(evidence: Evidence) -> Finding | None:
    """Judge the rank correlation of the selection's score with response length."""
    return _follows(evidence, evidence.notes["score_vs_length"], "the selection's score")


def _follows(evidence: Evidence, rho: float | None, what: str) -> Finding | None:
    if rho is None:
        return None
    found = f"rank correlation of {what} with the length of responses {rho:+.2f}"
    return Finding("warning" not in evidence.notes, evidence.notes.get("warning", found), abs(rho), WARNING_ABOVE)
