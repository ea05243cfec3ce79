"""Tables of this room's stage."""

import pyarrow as pa

from pipeline.table import ID, TEXT, table

PSEUDO_LABELS = table(
    id=ID,
    state=(TEXT, False, "majority, tie, all_abstain, or too_few_votes"),
    pseudo_answer=(TEXT, True, "answer with most votes; null unless the state is majority"),
    pseudo_index=(pa.int32(), True, "its option index; null for open questions and without majority"),
    representative=(pa.int32(), True, "sample number of the majority rollout with the highest mean log-probability"),
    n_votes=(pa.int32(), False, "rollouts with an answer"),
    n_abstentions=(pa.int32(), False, "rollouts without an answer"),
    vote_share=(pa.float64(), False, "votes of the leading answer over all rollouts, abstentions included"),
    margin=(pa.float64(), False, "leading minus second vote share"),
    entropy=(pa.float64(), False, "entropy of the votes (nats), abstentions left out"),
    effective_votes=(pa.float64(), False, "exp of the entropy: how many answers share the votes"),
)
