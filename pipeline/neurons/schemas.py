"""Tables of this room's stage."""

import pyarrow as pa

from pipeline.table import FLOATS, ID, SAMPLE, TOKENS, table

NEURON_SCORES = table(
    id=ID,
    sample=SAMPLE,
    neurons=(TOKENS, False, "neuron ids, layer * d_mlp + index, ascending"),
    scores=(FLOATS, False, "largest positive contribution of each neuron (logits), in the order of neurons"),
)

NEURON_SIZES = table(
    id=ID,
    sample=SAMPLE,
    n_neurons=(pa.int32(), False, "different neurons that carry the kept entries, |N|"),
    n_response_tokens=(pa.int32(), False, "response tokens scored: the obvious confound of |N|"),
    score_sum=(pa.float64(), False, "sum of all positive contributions (logits)"),
    participation_ratio=(pa.float64(), False, "(sum c)^2 / sum c^2 over all positive contributions"),
    entropy_size=(pa.float64(), False, "exp of the entropy of all positive contributions, normalised"),
    layer_counts=(TOKENS, False, "kept neurons per layer"),
    layer_scores=(FLOATS, False, "sum of all positive contributions per layer (logits)"),
    displacement=(pa.float64(), False, "mean RMS distance of the hidden state from first layer in to last layer out"),
    mean_logprob=(pa.float64(), True, "mean log-probability of the response tokens (nats), as sampled"),
    self_certainty=(pa.float64(), True, "mean over response tokens of KL(uniform, p) (nats), as sampled"),
)

RATIONALE_SCORES = table(
    id=ID,
    sample=SAMPLE,
    neurons=(TOKENS, False, "neuron ids, as in neuron_scores, of the response without its stated answer"),
    scores=(FLOATS, False, "largest positive contribution of each neuron (logits); all empty if nothing is left"),
)

STEM_SCORES = table(
    id=ID,
    neurons=(TOKENS, False, "neuron ids, as in neuron_scores, of the question's stem, read with sample 0"),
    scores=(FLOATS, False, "largest positive contribution of each neuron to a token of the stem (logits)"),
)

STEM_STATES = table(
    id=ID,
    state=(FLOATS, False, "mean over the stem's tokens of the hidden state leaving the last layer, before its norm"),
)

UNSCORED_ROLLOUTS = table(
    id=ID,
    sample=SAMPLE,
    reason=(pa.large_string(), False, "reason code"),
    detail=(pa.large_string(), False, "what is wrong, in words"),
)
