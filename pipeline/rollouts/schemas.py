"""Tables of this room's stage."""

from typing import Final

import pyarrow as pa

from pipeline.generation.generator import PROMPT_TOO_LONG
from pipeline.table import FLOATS, ID, SAMPLE, TOKENS, table

SPECIAL_TOKEN_IN_PROMPT: Final = "special_token_in_prompt"  # noqa: S105  not a password
"""Finish reason of a rollout whose question would be read as part of the chat template: no response."""
UNANSWERED: Final = (PROMPT_TOO_LONG, SPECIAL_TOKEN_IN_PROMPT)
"""Finish reasons of rollouts without a response."""

ROLLOUTS = table(
    id=ID,
    sample=SAMPLE,
    prompt=(pa.large_string(), False, "user message as shown: question, lettered options, instruction"),
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
    watched_ids=(TOKENS, False, "tokens by which a response can state one of the options shown; W of them"),
    watched_logprobs=(
        FLOATS,
        False,
        "for each response token that is a watched one, in order, the W log-probabilities of the watched tokens in its "
        "place at temperature 1 (nats), in the order of watched_ids",
    ),
    stem_start=(
        pa.int32(),
        True,
        "position in prompt_ids of the first token of the question's text, without options and instruction; null if "
        "it cannot be told exactly",
    ),
    stem_stop=(pa.int32(), True, "position after its last token; a token belongs to it if any of its characters does"),
)
