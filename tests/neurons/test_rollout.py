"""What a model can read, to the token."""

import pytest
from transformers import Phi3Config, Phi3ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from pipeline.models import LanguageModel
from pipeline.neurons.rollout import Limits, Reason, Rollout

LIMITS = Limits(context=8, n_inputs=20, n_outputs=16, rope_switch=None)


def refuse(prompt_ids, response_ids):
    refusal = LIMITS.refuse(Rollout(0, "q", 0, prompt_ids, response_ids))
    return refusal and refusal.reason


@pytest.mark.parametrize(
    ("prompt_ids", "response_ids", "reason"),
    [
        ([1], [1], None),
        ([1] * 4, [1] * 4, None),  # exactly the context
        ([1] * 4, [1] * 5, Reason.EXCEEDS_CONTEXT),
        ([1], [], Reason.EMPTY_RESPONSE),
        ([], [1], Reason.MISSING_PROMPT),
        ([19, 0], [15], None),
        ([20], [1], Reason.OUT_OF_VOCABULARY),
        ([1], [16], Reason.OUT_OF_VOCABULARY),  # the model reads it, but never says it
        ([1], [-1], Reason.OUT_OF_VOCABULARY),
        ([1], [1, None], Reason.OUT_OF_VOCABULARY),
    ],
)
def test_limits(prompt_ids, response_ids, reason):
    assert refuse(prompt_ids, response_ids) == reason


def test_limits_are_the_models():
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Qwen3Config(vocab_size=30, max_position_embeddings=12, head_dim=4, num_key_value_heads=1, **shape)
    assert Limits.of(LanguageModel(Qwen3ForCausalLM(config), None)) == (12, 30, 30, None)
    rope = {"rope_type": "longrope", "short_factor": [1.0, 1.0], "long_factor": [2.0, 3.0], "rope_theta": 10_000.0}
    rope["original_max_position_embeddings"] = 16
    config = Phi3Config(
        vocab_size=30, max_position_embeddings=64, pad_token_id=0, num_key_value_heads=2, rope_parameters=rope,
        original_max_position_embeddings=16, **shape,
    )  # fmt: skip
    assert Limits.of(LanguageModel(Phi3ForCausalLM(config), None)) == (64, 30, 30, 16)
