"""Tables of this room's stage."""

import pyarrow as pa

from pipeline.table import TEXT, table

PROPOSED_QUESTIONS = table(
    proposal=(TEXT, False, "which proposal: number of the draw"),
    examples=(pa.large_list(TEXT), False, "ids of the pool questions that were shown, the one drawn first"),
    response=(TEXT, False, "what the model wrote"),
    state=(
        TEXT,
        False,
        "accepted, or why not: unfinished, malformed, in_pool, repeated, near_duplicate, contaminated, no_majority, "
        "too_few_agree, too_many_agree",
    ),
    detail=(TEXT, False, "what is wrong, in words, or the id of the question that it repeats; empty for none"),
    id=(TEXT, True, "content hash of question and options; null for what is none"),
    question=(TEXT, True, "the new question; likewise"),
    options=(pa.large_list(TEXT), True, "its options, none for an open question; likewise"),
    domain=(TEXT, False, "domain of the example drawn"),
    pseudo_answer=(TEXT, True, "majority of the model's answers; null without one"),
    vote_share=(pa.float64(), True, "votes of the leading answer over all answers; null where none was asked for"),
)
