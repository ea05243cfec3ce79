"""The model as a judge of texts: the probability of Yes against No as its next token.

No judgment is sampled, so it is the same every time. Pinned by ``tests/training/test_judge.py``.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Final

import torch

from pipeline.answers.option_tokens import OptionTokens
from pipeline.batching import TokenBudget
from pipeline.errors import TrainingError
from pipeline.generation.generator import Request
from pipeline.models import LanguageModel, encode_chat, has_special_tokens
from training.divergence import apply_head, check_head, last_hidden_states
from training.sampling import without_dropout

_ABOUT: Final = "Question:\n{prompt}\n\nResponse:\n{response}\n\n"
_REPLY: Final = " Reply with Yes or No."
IS_RIGHT: Final = f"{_ABOUT}Is the final answer of the response right?{_REPLY}"
"""Asks whether a ``response`` to a ``prompt`` is right."""
IS_WRONG: Final = f"{_ABOUT}Is the final answer of the response wrong?{_REPLY}"
"""Asks for the opposite: who says yes to everything fails one of the two."""
IS_TRUE: Final = f"{_ABOUT}Is everything that the response states true?{_REPLY}"
"""Asks whether a ``response`` to a ``prompt`` holds no error."""
IS_FALSE: Final = f"{_ABOUT}Does the response state anything that is false?{_REPLY}"
"""Asks for the opposite."""
IS_SAME: Final = f"First question:\n{{prompt}}\n\nSecond question:\n{{restated}}\n\nDo both ask for the same?{_REPLY}"
"""Asks whether a question is the ``prompt`` again."""
IS_ANOTHER: Final = (
    f"First question:\n{{prompt}}\n\nSecond question:\n{{restated}}\n\nDo they ask for different things?{_REPLY}"
)
"""Asks for the opposite."""
BATCH_TOKENS: Final = 16_384
"""Padded tokens of a batch; bounds memory, never results."""


class Judge:
    """Asks a model yes-or-no questions; an adapter that is put into the model later judges with it."""

    def __init__(self, language_model: LanguageModel) -> None:
        """Take the model (``get_base_model()`` of a PEFT model) and its tokenizer."""
        self._language_model, self._budget = language_model, TokenBudget(BATCH_TOKENS)

    @cached_property
    def _verdicts(self) -> OptionTokens:
        """Tokens that begin Yes (0) and No (1)."""
        verdicts = OptionTokens.by_text(self._language_model.tokenizer, ("Yes", "No"))
        if not verdicts.options:
            raise TrainingError(
                "the model cannot judge: its tokenizer begins Yes and No with one token: "
                "take another rival_adapter.targets or rival_adapter.reward"
            )
        check_head(self._language_model.model)
        return verdicts

    def p_yes(self, questions: Sequence[str]) -> list[float | None]:
        """Return P(Yes) / (P(Yes) + P(No)) as the first token of the answer to each question.

        None for a question that holds special tokens of the model or does not fit its positions. Raises TrainingError
        when Yes and No cannot be told apart, or for a family whose logits are not made of hidden states alone.
        """
        tokenizer, found = self._language_model.tokenizer, dict[int, float]()
        encoded = enumerate(encode_chat(tokenizer, question) for question in questions)
        asked = [
            Request(id=questions[i], sample=i, seed=0, prompt_ids=ids)
            for i, ids in encoded
            if len(ids) < self._language_model.max_length and not has_special_tokens(tokenizer, questions[i])
        ]
        asked.sort(key=lambda request: len(request.prompt_ids))
        with without_dropout(self._language_model.model):
            for batch, shares in self._budget.run(asked, lambda request: len(request.prompt_ids), self._ask):
                found |= zip((request.sample for request in batch), shares, strict=True)
        return [found.get(i) for i in range(len(questions))]

    @torch.no_grad()
    def _ask(self, batch: Sequence[Request]) -> list[float]:
        model, verdicts = self._language_model.model, self._verdicts
        lengths = [len(request.prompt_ids) for request in batch]
        # Padded on the right, where a causal model never looks, so positions are those of the prompt alone.
        rows = [[*request.prompt_ids, *[0] * (max(lengths) - len(request.prompt_ids))] for request in batch]
        ids = torch.tensor(rows)
        mask = torch.tensor([[1] * n + [0] * (max(lengths) - n) for n in lengths])
        hidden = last_hidden_states(model, ids.to(model.device), mask.to(model.device))  # [B, S, D]
        logits = apply_head(model, hidden[torch.arange(len(batch)), torch.tensor(lengths) - 1])  # [B, V]
        shares = logits[:, list(verdicts.options)].softmax(-1, torch.float32)
        is_yes = torch.tensor([option == 0 for option in verdicts.options.values()], device=shares.device)
        return [float(share) for share in shares[:, is_yes].sum(1)]
