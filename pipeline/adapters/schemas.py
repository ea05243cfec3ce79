"""Tables of this room's stage."""

import pyarrow as pa

from pipeline.table import table

TRAINING_LOG = table(
    step=(pa.int32(), False, "optimizer step, from 1"),
    loss=(
        pa.float64(),
        False,
        "per response token: divergence of student from teacher, or cross-entropy of the majority's response (nats)",
    ),
    learning_rate=(pa.float64(), False, "learning rate of the step"),
    grad_norm=(pa.float64(), False, "gradient norm before clipping"),
    response_tokens=(
        pa.float64(),
        False,
        "mean length of the student's samples, or of the majority's responses (tokens)",
    ),
)
