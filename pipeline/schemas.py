"""Tables of each artifact."""

from collections.abc import Mapping
from typing import Final

import pyarrow as pa

from pipeline.adapters.schemas import TRAINING_LOG
from pipeline.beliefs.schemas import CONTEXT_BELIEFS
from pipeline.causal.schemas import CAUSAL_CHECK
from pipeline.deduplication.schemas import CONTAMINATION, DROPPED, POOL
from pipeline.evaluation.schemas import METRICS, PREDICTIONS
from pipeline.neurons.schemas import (
    NEURON_SCORES,
    NEURON_SIZES,
    RATIONALE_SCORES,
    STEM_SCORES,
    STEM_STATES,
    UNSCORED_ROLLOUTS,
)
from pipeline.pool.schemas import GOLD_LABELS, QUARANTINE, RAW_POOL
from pipeline.rollouts.schemas import ROLLOUTS
from pipeline.selection.schemas import CURATED_SUBSET
from pipeline.teacher.schemas import TEACHER_CONTEXTS
from pipeline.votes.schemas import PSEUDO_LABELS

ARTIFACTS: Final[Mapping[str, Mapping[str, pa.Schema]]] = {
    "raw_pool": {"raw_pool": RAW_POOL},
    "gold_labels": {"gold_labels": GOLD_LABELS},
    "quarantine": {"quarantine": QUARANTINE},
    "pool": {
        "pool": POOL,
        "dropped": DROPPED,
        "contamination": CONTAMINATION,
        "in_domain_test": RAW_POOL,
        "out_of_domain_test": RAW_POOL,
    },
    "rollouts": {"rollouts": ROLLOUTS},
    "pseudo_labels": {"pseudo_labels": PSEUDO_LABELS},
    "neuron_scores": {
        "neuron_scores": NEURON_SCORES,
        "neuron_sizes": NEURON_SIZES,
        "rationale_scores": RATIONALE_SCORES,
        "stem_scores": STEM_SCORES,
        "stem_states": STEM_STATES,
        "unscored_rollouts": UNSCORED_ROLLOUTS,
    },
    "context_beliefs": {"context_beliefs": CONTEXT_BELIEFS},
    "curated_subset": {"curated_subset": CURATED_SUBSET},
    "teacher_contexts": {"teacher_contexts": TEACHER_CONTEXTS},
    "distilled_adapter": {"training_log": TRAINING_LOG},
    "sft_adapter": {"training_log": TRAINING_LOG},
    "evaluation": {"predictions": PREDICTIONS, "metrics": METRICS},
    "causal_check": {"causal_check": CAUSAL_CHECK},
}
"""Tables of each artifact; the first is the one that downstream stages read."""
