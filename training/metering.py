"""What a training costs, whatever its objective: tokens counted where they pass the decoder, and the process's usage.

The costs are brought up to date after every step, for whoever started the process and may find it killed.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback

from pipeline.ledger.meter import count_tokens, metered
from pipeline.ledger.usage import Usage, keep_cost
from pipeline.models import LanguageModel

_logger = logging.getLogger(__name__)


@contextmanager
def metering(trainer: Trainer, language_model: LanguageModel, folder: Path | None) -> Iterator[None]:
    """Keep what the block costs in a folder, if there is one."""
    if folder is None:
        yield
        return
    with metered() as meter:
        keeper = _Keeper(Usage(meter), language_model, folder)
        trainer.add_callback(keeper)
        decoder = language_model.model.get_decoder()
        hook = decoder.register_forward_pre_hook(keeper.see, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()
            trainer.remove_callback(keeper)
            keeper.keep()


class _Keeper(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Counts forward passes on the model's device, without waiting for it."""

    def __init__(self, usage: Usage, language_model: LanguageModel, folder: Path) -> None:
        self._usage, self._folder, self._failed = usage, folder, False
        device = language_model.device
        self._read, self._trained = (torch.zeros((), dtype=torch.long, device=device) for _ in range(2))

    def see(self, _decoder: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        """Count a forward pass of the decoder."""
        ids = given.get("input_ids", args[0] if args else None)
        if ids is None or torch.is_inference_mode_enabled():  # hidden states for the head; the generator's, who counts
            return
        mask = given.get("attention_mask")
        n_tokens = ids.numel() if mask is None else mask[:, -ids.shape[1] :].sum()
        if torch.is_grad_enabled():
            self._trained += n_tokens
        else:
            self._read += n_tokens

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Keep what the training costs so far."""
        self.keep()

    def keep(self) -> None:
        """Keep the cost up to now."""
        count_tokens(int(self._read), trained=int(self._trained))
        for counted in (self._read, self._trained):
            counted.zero_()
        try:
            keep_cost(self._usage.cost(), self._folder)
        except OSError as error:  # no reason to lose a training
            if not self._failed:
                _logger.warning("what the training costs is not recorded: %s (%s)", self._folder, error.strerror)
            self._failed = True
