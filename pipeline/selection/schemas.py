"""Tables of this room's stage."""

import pyarrow as pa

from pipeline.table import ID, TEXT, table

CURATED_SUBSET = table(
    id=ID,
    selected=(pa.bool_(), False, "whether the question becomes a training question"),
    score=(pa.float64(), True, "the rule's score; null when the rule cannot score the question"),
    rank=(pa.int32(), True, "rank of the score within its budget, from 1; null without score"),
    distance_to_cut=(pa.float64(), True, "score minus the score of the last question kept"),
    reason=(TEXT, False, "why the question was chosen or not, in words"),
)
