"""Tables of this room's stage."""

import pyarrow as pa

from pipeline.table import ID, TEXT, table

RAW_POOL = table(
    id=ID,
    question=(TEXT, False, "question text, normalised to NFC with outer white space removed"),
    options=(
        pa.large_list(TEXT),
        False,
        "answer options in the source's order, which every option index counts in; empty for an open question",
    ),
    kind=(TEXT, False, "multiple_choice, true_or_false, or open"),
    domain=(TEXT, False, "domain as the source names it; empty when it does not"),
    level=(TEXT, False, "level as the source names it; empty when it does not"),
    task=(TEXT, False, "task as the source names it; empty when it does not"),
    permutation=(
        pa.large_list(pa.int32()),
        False,
        "index of the option that prompts show at each letter; 0, 1, ... unless permuted",
    ),
    source=(TEXT, False, "file name and line or row number, from 1"),
)

GOLD_LABELS = table(
    id=ID,
    gold_answer=(TEXT, False, "text of the right option, or the reference answer of an open question"),
    gold_index=(pa.int32(), True, "index of the right option, from 0; null for an open question"),
)

QUARANTINE = table(
    source=(TEXT, False, "file name"),
    line=(pa.int64(), False, "line or row number, from 1"),
    reason=(TEXT, False, "reason code"),
    detail=(TEXT, False, "what is wrong, in words"),
    raw=(TEXT, False, "the row as it was read, long ones cut; undecodable bytes as backslash escapes"),
)
