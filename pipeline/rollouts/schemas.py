"""Tables of this room's stage."""

import pyarrow as pa

from pipeline.table import FLOATS, ID, SAMPLE, TOKENS, table

ROLLOUTS = table(
    id=ID,
    sample=SAMPLE,
    prompt_ids=(TOKENS, False, "token ids of the rendered prompt, chat template included"),
    permutation=(TOKENS, False, "index of the option that this rollout's prompt shows at each letter"),
    response_ids=(TOKENS, False, "token ids sampled, the end token included when it was reached"),
    response=(pa.large_string(), False, "decoded response without special tokens"),
    logprobs=(FLOATS, False, "log-probability of each response token at temperature 1 (nats)"),
    self_certainty=(
        pa.float64(),
        True,
        "mean over response tokens of KL(uniform, p) (nats); null without response",
    ),
    finish_reason=(
        pa.large_string(),
        False,
        "stop, length; without response, prompt_too_long or special_token_in_prompt",
    ),
    answer=(pa.large_string(), True, "extracted answer: option text, or text of an open answer; null is an abstention"),
    answer_index=(pa.int32(), True, "index of the extracted option, from 0; null for abstentions and open questions"),
    extraction=(pa.large_string(), False, "rule that found the answer, or why the extractor abstained"),
    option_probs=(
        FLOATS,
        True,
        "probability of each option, by its letter or first token, where the answer is stated; null if it is not",
    ),
    stem_start=(
        pa.int32(),
        True,
        "position in prompt_ids of the first token of the question's text, without options and instruction; null if "
        "it cannot be told exactly",
    ),
    stem_stop=(pa.int32(), True, "position after its last token; a token belongs to it if any of its characters does"),
    answer_start=(pa.int32(), True, "position in response_ids of the stated answer's first token; null if abstained"),
    answer_stop=(pa.int32(), True, "position after its last token"),
)
