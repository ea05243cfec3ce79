"""Tables of this room's stage."""

import pyarrow as pa

from pipeline.table import ID, SAMPLE, TOKENS, table

CAUSAL_CHECK = table(
    id=ID,
    sample=SAMPLE,
    n_response_tokens=(pa.int32(), False, "response tokens read"),
    n_silenced=(pa.int32(), False, "neurons silenced: those of the largest contributions to the response"),
    layer_counts=(TOKENS, False, "silenced neurons per layer; each random control has the same"),
    logprob=(pa.float64(), False, "mean log-probability of the response tokens, no neuron silenced (nats)"),
    logprob_silenced=(pa.float64(), False, "the same with the leading neurons silenced (nats)"),
    logprob_random=(pa.float64(), False, "the same with random neurons silenced, mean over the controls (nats)"),
    drop_silenced=(pa.float64(), False, "logprob minus logprob_silenced: what the leading neurons are worth (nats)"),
    drop_random=(pa.float64(), False, "logprob minus logprob_random (nats)"),
)
