"""Tables of this room."""

import pyarrow as pa

from pipeline.table import TEXT, table

MERGED_MODEL = table(
    tensor=(TEXT, False, "name of the weights"),
    shape=(TEXT, False, "sizes of its axes"),
    norm=(pa.float64(), False, "Euclidean norm of all its numbers"),
)

ROUNDS = table(
    round=(pa.int32(), False, "number of the round, from 1"),
    base=(pa.int32(), False, "round whose model it began with; 0 is the model of the configuration"),
    promoted=(pa.bool_(), False, "whether the next round may begin with its model"),
    verdict=(TEXT, False, "why, in words"),
    questions=(pa.int32(), False, "questions of its pool"),
    answer_echo=(pa.float64(), True, "examples that state the target's own vote, share; null without pairs"),
    answer_echo_by_chance=(pa.float64(), True, "the same for random examples"),
    settings=(TEXT, False, "digest of the settings that it was made with, the model left out"),
    base_model=(TEXT, False, "fingerprint of the model that it began with"),
    model=(TEXT, False, "fingerprint of the model that it made"),
)

DRIFT = table(
    round=(pa.int32(), False, "number of the round"),
    signal=(TEXT, False, "what was compared; see pipeline.rounds.drift.SIGNALS"),
    before=(pa.float64(), True, "of the model that the round began with; null for what compares the two"),
    after=(pa.float64(), False, "of the model that it made, or of the two"),
    low=(pa.float64(), False, "lower end of the bootstrap interval, of after - before where there is a before"),
    high=(pa.float64(), False, "upper end"),
    n=(pa.int32(), False, "questions"),
    setting=(TEXT, False, "setting of the limit"),
    limit=(pa.float64(), False, "its value"),
    strain=(pa.float64(), False, "share of the way to the limit that it has come; 1 or more is past it"),
    strain_low=(pa.float64(), False, "lower end of its bootstrap interval"),
    strain_high=(pa.float64(), False, "upper end"),
)
