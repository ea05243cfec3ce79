"""Tables of this room's stage."""

import pyarrow as pa

from pipeline.table import ID, table

TEACHER_LIFT = table(
    id=ID,
    confirmed=(pa.float64(), False, "share of pairs of a response with the own examples and one with further ones that "
               "agree on an answer other than the model's vote"),
    confirmed_wrong=(pa.float64(), False, "the same for pairs of which one saw the wrong examples"),
    lift=(pa.float64(), False, "difference of the two"),
)  # fmt: skip

LIFT_ANSWERS = table(
    id=ID,
    examples=(pa.large_string(), False, "none, own, further (the next nearest) or wrong (another question's)"),
    agreement=(pa.float64(), False, "vote share of the leading answer over all responses"),
    confidence=(pa.float64(), False, "mean log-probability of the responses' tokens (nats)"),
    abstention=(pa.float64(), False, "share of responses without an answer"),
    belief_shift=(pa.float64(), False, "Jensen-Shannon divergence from the answers without examples (nats)"),
)
