"""Tables of this room's stage."""

import pyarrow as pa

from pipeline.table import ID, table

RAW_POOL = table(
    id=ID,
    question=(pa.large_string(), False, "question text, normalised to NFC with outer white space removed"),
    options=(
        pa.large_list(pa.large_string()),
        False,
        "answer options in the source's order, which every option index counts in; empty for an open question",
    ),
    kind=(pa.large_string(), False, "multiple_choice, true_or_false, or open"),
    domain=(pa.large_string(), False, "domain as the source names it; empty when it does not"),
    level=(pa.large_string(), False, "level as the source names it; empty when it does not"),
    task=(pa.large_string(), False, "task as the source names it; empty when it does not"),
    permutation=(
        pa.large_list(pa.int32()),
        False,
        "index of the option that prompts show at each letter; 0, 1, ... unless permuted",
    ),
    source=(pa.large_string(), False, "file name and line or row number, from 1"),
)

GOLD_LABELS = table(
    id=ID,
    gold_answer=(pa.large_string(), False, "text of the right option, or the reference answer of an open question"),
    gold_index=(pa.int32(), True, "index of the right option, from 0; null for an open question"),
)

QUARANTINE = table(
    source=(pa.large_string(), False, "file name"),
    line=(pa.int64(), False, "line or row number, from 1"),
    reason=(pa.large_string(), False, "reason code"),
    detail=(pa.large_string(), False, "what is wrong, in words"),
    raw=(pa.large_string(), False, "the row as it was read, long ones cut; undecodable bytes as backslash escapes"),
)
