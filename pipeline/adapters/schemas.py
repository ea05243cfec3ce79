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
    clipped_share=(pa.float64(), True, "share of the step's samples that the length limit cut; null without samples"),
    entropy=(
        pa.float64(),
        True,
        "entropy of the student's next token, mean over response tokens (nats), at temperature 1, or at that of "
        "sampling where there is a reward",
    ),
    distinct_responses=(pa.float64(), True, "different responses among the step's samples, by all; null without"),
    distinct_answers=(
        pa.float64(),
        True,
        "different answers that the step's samples state, by all samples; null where the objective reads none",
    ),
    agreement=(
        pa.float64(),
        True,
        "share of the step's samples that state their question's leading answer; null where the objective reads none",
    ),
    kl_to_base=(
        pa.float64(),
        True,
        "KL of the student to the base model, mean over the response tokens of a micro-batch (nats), exact over the "
        "vocabulary; null at steps where it is not taken",
    ),
    reward=(pa.float64(), True, "mean reward of the step's samples; null without a reward"),
)
