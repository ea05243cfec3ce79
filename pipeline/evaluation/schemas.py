"""Tables of this room's stage."""

import pyarrow as pa

from pipeline.table import FLOATS, ID, SAMPLE, TEXT, table

PREDICTIONS = table(
    model=(
        TEXT,
        False,
        "what the model is called: untouched, distilled, ceiling (gold), or the rival's method, such as sft",
    ),
    split=(TEXT, False, "in_domain or out_of_domain"),
    id=ID,
    sample=SAMPLE,
    answer=(TEXT, True, "extracted answer; null is an abstention"),
    answer_index=(pa.int32(), True, "index of the extracted option; null for abstentions and open questions"),
    gold_index=(pa.int32(), True, "index of the right option; null for open questions"),
    correct=(pa.bool_(), False, "whether the answer is the gold answer; abstentions are wrong"),
    option_probs=(FLOATS, True, "probability of each option where the answer is stated, normalised"),
    p_true=(pa.float64(), True, "the model's own P(True) of the question's majority answer; null where not asked"),
)

METRICS = table(
    model=(TEXT, False, "a model, or a paired difference such as distilled - untouched"),
    split=(TEXT, False, "in_domain or out_of_domain"),
    metric=(TEXT, False, "avg_at_k, maj_at_k, ece_option, ece_vote, brier_option, brier_vote"),
    value=(pa.float64(), False, "estimate"),
    low=(pa.float64(), False, "lower end of the bootstrap interval"),
    high=(pa.float64(), False, "upper end of the bootstrap interval"),
    n=(pa.int32(), False, "questions"),
    k=(pa.int32(), False, "samples per question"),
    seed=(pa.int32(), False, "seed of the bootstrap"),
)
