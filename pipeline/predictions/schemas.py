"""Tables of this room's stages, besides the responses."""

import pyarrow as pa

from pipeline.table import ID, TEXT, table

P_TRUE = table(
    id=ID,
    answer=(TEXT, False, "the model's own majority answer"),
    p_true=(pa.float64(), False, "probability of Yes against No when asked whether this answer is right"),
)
