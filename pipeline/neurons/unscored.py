"""When too few rollouts could be scored."""

from collections.abc import Mapping
from typing import Any

from pipeline.errors import ModelError
from pipeline.neurons.config import NeuronScoresConfig


def check_unscored(notes: Mapping[str, Any], section: NeuronScoresConfig) -> None:
    """Raise ModelError when a larger share of the rollouts than allowed cannot be scored."""
    n_rollouts, unscored = notes["rollouts"], notes["rollouts"] - notes["scored"]
    share = unscored / max(n_rollouts, 1)
    if share > section.max_unscored_share:
        reasons = ", ".join(f"{reason} {count}" for reason, count in notes["unscored"].items())
        raise ModelError(
            f"{unscored} of {n_rollouts} rollouts cannot be scored ({share:.1%}, allowed "
            f"{section.max_unscored_share:.1%}): {reasons}; mend the model, sample again with model.dtype=float32, or "
            "raise neuron_scores.max_unscored_share"
        )
