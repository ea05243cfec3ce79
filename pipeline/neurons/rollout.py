"""What is scored: one rollout as tokens, and why some cannot be (rows of the table ``unscored_rollouts``).

Pinned by ``tests/neurons/test_rollout.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from pipeline.models import LanguageModel


@dataclass(frozen=True)
class Rollout:
    """A rollout to score."""

    row: int
    """Row in the table that it comes from."""
    id: str
    """Question."""
    sample: int
    """Number of the rollout within its question."""
    prompt_ids: Sequence[int]
    """Tokens of the rendered prompt."""
    response_ids: Sequence[int]
    """Response tokens, the end token included."""
    mean_logprob: float | None = None
    """Mean log-probability of the response tokens (nats), where it was recorded."""
    self_certainty: float | None = None
    """Mean over the response tokens of KL(uniform, p) (nats; arXiv 2505.19590), where it was recorded."""
    stem_start: int | None = None
    """Position in ``prompt_ids`` of the first token of the question's stem, where it is known."""
    stem_stop: int | None = None
    """Position after its last token."""
    answer_start: int | None = None
    """Position in ``response_ids`` of the stated answer's first token, where there is one."""
    answer_stop: int | None = None
    """Position after its last token."""

    @property
    def n_tokens(self) -> int:
        """Length of prompt and response (tokens)."""
        return len(self.prompt_ids) + len(self.response_ids)


class Reason(StrEnum):
    """Codes in the table ``unscored_rollouts``."""

    EMPTY_RESPONSE = "empty_response"
    MISSING_PROMPT = "missing_prompt"
    EXCEEDS_CONTEXT = "exceeds_context"
    OUT_OF_VOCABULARY = "out_of_vocabulary"
    NOT_FINITE = "not_finite"


class Refusal(NamedTuple):
    """Why a rollout is not scored."""

    reason: Reason
    """Code."""
    detail: str
    """What is wrong, in words, and the remedy."""


class Limits(NamedTuple):
    """What a model can read."""

    context: int
    """Positions (tokens)."""
    n_inputs: int
    """Rows of the embedding; may exceed the tokenizer's vocabulary."""
    n_outputs: int
    """Rows of the unembedding."""
    rope_switch: int | None
    """Length (tokens) beyond which a batch is read with other position embeddings, if there is one (LongRoPE)."""

    @classmethod
    def of(cls, language_model: LanguageModel) -> "Limits":
        """Read the limits off a model."""
        embeddings = (language_model.model.get_input_embeddings(), language_model.model.get_output_embeddings())
        n_inputs, n_outputs = (embedding.weight.shape[0] for embedding in embeddings)
        config = language_model.model.config.get_text_config(decoder=True)
        rope = getattr(config, "rope_parameters", None) or {}
        switch = rope.get("original_max_position_embeddings") if rope.get("rope_type") == "longrope" else None
        return cls(language_model.max_length, n_inputs, n_outputs, switch)

    def refuse(self, rollout: Rollout) -> Refusal | None:
        """Return why the model cannot read a rollout, or None if it can."""
        if not rollout.response_ids:
            return Refusal(Reason.EMPTY_RESPONSE, "no response token to score")
        if not rollout.prompt_ids:
            return Refusal(Reason.MISSING_PROMPT, "no prompt token: sample the rollout again")
        if rollout.n_tokens > self.context:
            detail = f"{rollout.n_tokens} tokens, but the model has {self.context} positions: shorten the response"
            return Refusal(Reason.EXCEEDS_CONTEXT, detail)
        readable = {"prompt": self.n_inputs, "response": min(self.n_inputs, self.n_outputs)}
        for (part, n_rows), ids in zip(readable.items(), (rollout.prompt_ids, rollout.response_ids), strict=True):
            wrong = [token for token in ids if token is None or not 0 <= token < n_rows]
            if wrong:
                detail = f"{part} token {wrong[0]}, but the model knows 0 to {n_rows - 1}: sample with the same model"
                return Refusal(Reason.OUT_OF_VOCABULARY, detail)
        return None
