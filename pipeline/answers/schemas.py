"""Tables of this room's stage."""

import pyarrow as pa

from pipeline.table import FLOATS, ID, SAMPLE, table

ANSWERS = table(
    id=ID,
    sample=SAMPLE,
    answer=(pa.large_string(), True, "extracted answer: option text, or text of an open answer; null is an abstention"),
    answer_index=(pa.int32(), True, "index of the extracted option, from 0; null for abstentions and open questions"),
    extraction=(
        pa.large_string(),
        False,
        "rule that found the answer, or why there is none: the extractor abstained, or there is no response",
    ),
    option_probs=(
        FLOATS,
        True,
        "probability of each option, by its letter or first token, where the answer is stated; null if it is not",
    ),
    answer_start=(pa.int32(), True, "position in response_ids of the stated answer's first token; null if abstained"),
    answer_stop=(pa.int32(), True, "position after its last token"),
)
