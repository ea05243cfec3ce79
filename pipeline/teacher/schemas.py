"""Tables of this room's stage."""

import pyarrow as pa

from pipeline.table import FLOATS, ID, table

TEACHER_CONTEXTS = table(
    id=ID,
    prompt=(pa.large_string(), False, "the student's user message"),
    privileged_context=(pa.large_string(), False, "what the teacher sees before the prompt; may be empty"),
    demonstration_ids=(pa.large_list(pa.large_string()), False, "pool questions shown, in order"),
    similarities=(FLOATS, False, "similarity of each demonstration to the question"),
    n_teacher_tokens=(pa.int32(), False, "tokens of the teacher's rendered prompt"),
    n_dropped=(pa.int32(), False, "demonstrations left out because they did not fit"),
)
