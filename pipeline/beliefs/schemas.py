"""Tables of this room's stage."""

import pyarrow as pa

from pipeline.table import FLOATS, ID, table

CONTEXT_BELIEFS = table(
    id=ID,
    n_samples=(pa.int32(), False, "responses sampled with the teacher's context; 0 where the prompt got none"),
    plain=(FLOATS, True, "share of votes per option without context, abstentions left out; null without votes"),
    informed=(FLOATS, True, "the same with the teacher's context"),
    belief_shift=(
        pa.float64(),
        True,
        "Jensen-Shannon divergence of the two, abstaining an answer of its own (nats); null without responses",
    ),
    informed_answer=(pa.large_string(), True, "answer with most votes given the context; null on a tie or without"),
    informed_share=(pa.float64(), True, "its votes over all responses; null without responses"),
)
