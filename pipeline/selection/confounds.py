"""What a selection goes along with besides what its rule means to measure (method, section 10)."""

import polars as pl

from pipeline.correlation import WARNING_ABOVE, rank_correlation
from pipeline.selection.rule import Signals


def confounds(subset: pl.DataFrame, signals: Signals) -> dict[str, float | str | None]:
    """Return Spearman's rho, over questions, of the score with length, vote share, entropy and self-certainty.

    Length and self-certainty are means over rollouts; vote share and entropy are of questions with a vote. None stands
    for too few questions or constant values. ``warning`` is there when the score mostly follows the length.

    Args:
        subset: rows of schema CURATED_SUBSET.
        signals: what the rule saw.
    """
    voted = signals.pseudo_labels.filter(pl.col("n_votes") > 0)
    measures = {
        "length": signals.mean_over_rollouts(pl.col("n_response_tokens")),
        "vote_share": voted.select("id", mean="vote_share"),
        "entropy": voted.select("id", mean="entropy"),
        "self_certainty": signals.mean_over_rollouts(pl.col("self_certainty")),
    }
    notes: dict[str, float | str | None] = {}
    for name, values in measures.items():
        pairs = subset.join(values, on="id")
        notes[f"score_vs_{name}"] = rank_correlation(pairs["score"], pairs["mean"])
    rho = notes["score_vs_length"]
    if isinstance(rho, float) and abs(rho) > WARNING_ABOVE:
        notes["warning"] = (
            f"The score follows the length of the responses (Spearman's rho {rho:+.2f}): questions with "
            f"{'short' if rho > 0 else 'long'} responses are kept first, whatever else the rule measures. Compare it "
            "with curated_subset.rule=length before crediting the rule; neuron_support_residual is |N| with the length "
            "regressed out."
        )
    return notes
