"""Tables of a study's results."""

import pyarrow as pa

from pipeline.table import TEXT, table

CELLS = table(
    arm=(TEXT, False, "what was tried"),
    world=(TEXT, False, "what it was tried on"),
    seed=(pa.int64(), False, "seed of the run"),
    split=(TEXT, True, "in_domain or out_of_domain; null for what it costs to make the model"),
    metric=(TEXT, False, "as in the table metrics of an evaluation, or in a ledger; training_*: of training alone"),
    value=(pa.float64(), False, "figure of this run"),
    n=(pa.int32(), True, "questions; null for a cost"),
    k=(pa.int32(), True, "samples per question; null for a cost"),
)

FIGURES = table(
    arm=(TEXT, False, "what was tried"),
    against=(TEXT, True, "arm that it is compared with on the same questions and seeds; null for the arm's own figure"),
    split=(TEXT, True, "in_domain or out_of_domain; null for what it costs to make the model"),
    metric=(TEXT, False, "as in the table metrics of an evaluation, or in a ledger; training_*: of training alone"),
    value=(pa.float64(), False, "mean over worlds and seeds, or the difference"),
    low=(pa.float64(), False, "lower end of the bootstrap interval, over seeds and questions; of a cost, over seeds"),
    high=(pa.float64(), False, "upper end"),
    p=(pa.float64(), True, "two-sided p-value of a difference, by the bootstrap"),
    p_adjusted=(
        pa.float64(),
        True,
        "the same, adjusted for all differences of this metric and test (Benjamini and Yekutieli)",
    ),
    is_equivalent=(
        pa.bool_(),
        True,
        "whether a difference lies within the margin (two one-sided tests); null where no margin is stated",
    ),
    n=(pa.int32(), True, "questions, of all worlds; null for a cost"),
    seeds=(pa.int32(), False, "seeds"),
    worlds=(pa.int32(), False, "worlds"),
)
