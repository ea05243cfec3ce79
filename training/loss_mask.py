"""Which tokens of the student's responses count in the loss of distillation."""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from pipeline.adapters.config import DistillationConfig
from pipeline.adapters.job import TrainingJob
from pipeline.models import LanguageModel
from pipeline.stage import resolve

_ANSWER_TOKENS = "training.answer_tokens:answer_tokens"


class LossMask:
    """Chooses by the settings ``loss_on``, ``loss_tokens`` and ``truncated``; all response tokens by default."""

    def __init__(
        self,
        job: TrainingJob,
        settings: DistillationConfig,
        language_model: LanguageModel,
        orders: Mapping[str, Sequence[int]],
    ) -> None:
        """Read what the choice needs; raises ArtifactError where that is the pool and it is not there.

        ``orders`` are the indices of the options at each letter, of questions that are not asked in the pool's order.
        """
        self._settings = settings
        self._stop_ids: Collection[int] = language_model.stop_ids
        by_answer = settings.loss_on == "answer"
        self._find = resolve(_ANSWER_TOKENS)(job, language_model.tokenizer, orders) if by_answer else None

    def __call__(self, keys: Sequence[str], prompts: Tensor, responses: Tensor, mask: Tensor) -> Tensor:
        """Return the mask of the tokens that count, ``[B, T]``.

        Args:
            keys: Question of each row.
            prompts: Token ids of the prompts ``[B, S]``, padding before them.
            responses: Token ids of the responses ``[B, T]``.
            mask: Which of these are no padding ``[B, T]``.
        """
        counts = torch.zeros_like(mask)
        for row, key in enumerate(keys):
            ids = responses[row][mask[row].bool()].tolist()
            is_finished = bool(ids) and ids[-1] in self._stop_ids
            if not is_finished and self._settings.truncated == "drop":
                continue
            start, stop = self._find(key, prompts[row].tolist(), ids, is_finished) if self._find else (0, len(ids))
            if self._settings.loss_tokens:
                stop = min(stop, start + self._settings.loss_tokens)
            counts[row, start:stop] = 1
        return counts
