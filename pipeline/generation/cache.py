"""Keys and values of a batch that is being sampled, with room for the tokens to come.

``DynamicLayer`` of transformers copies itself whole to append a token or to let a row go. Pinned by
``tests/generation/test_cache.py``.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped
    """A ``DynamicLayer`` whose keys and values are the first tokens of wider tensors, which change in place.

    The memory of rows that have left stays taken.
    """

    def __init__(self, layer: DynamicLayer, n_more: int) -> None:
        """Take what an initialised layer holds; at the first change it gets room for ``n_more`` tokens."""
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self.keys, self.values = layer.keys, layer.values
        self._width = self.get_seq_length() + n_more
        self._wide: list[Tensor] = []

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append tokens ``[B, H, T, D]``, no more in all than there is room for; returns all keys and values."""
        if not self._wide:
            self._widen(torch.arange(len(key_states), device=key_states.device))
        start, n_new = self.get_seq_length(), key_states.shape[-2]
        for wide, states in zip(self._wide, (key_states, value_states), strict=True):
            wide.narrow(-2, start, n_new).copy_(states)
        self._show(start + n_new)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Make these rows ``[R]`` the batch. Only those that change their place are copied, unless rows are added."""
        if not self._wide or len(beam_idx) > len(self.keys):
            self._widen(beam_idx)
            return
        moved = (beam_idx != torch.arange(len(beam_idx), device=beam_idx.device)).nonzero().squeeze(1)
        for states in (self.keys, self.values):
            states[moved] = states[beam_idx[moved]]
        self._wide = [wide[: len(beam_idx)] for wide in self._wide]
        self._show(self.get_seq_length())

    def _widen(self, rows: Tensor) -> None:
        self._wide, n_tokens = [], self.get_seq_length()
        for states in (self.keys, self.values):
            wide = states.new_empty(len(rows), states.shape[1], self._width, states.shape[3])
            wide[..., :n_tokens, :] = states[rows]
            self._wide.append(wide)
        self._show(n_tokens)

    def _show(self, n_tokens: int) -> None:
        self.keys, self.values = (wide[..., :n_tokens, :] for wide in self._wide)


def make_room(cache: DynamicCache, n_more: int) -> None:
    """Give the layers of a cache that keep all keys and values room for ``n_more`` tokens.

    Those of sliding windows, linear attention and state spaces stay as they are.
    """
    for i, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.is_initialized:
            cache.layers[i] = RoomyLayer(layer, n_more)


def close_up(stays: Tensor) -> Tensor:
    """Return the rows that stay by a mask ``[B]``, the last of them in the places of those that leave: ``[R]``."""
    staying = stays.nonzero().squeeze(1)
    rows = torch.arange(len(staying), device=stays.device)
    rows[~stays[: len(rows)]] = staying[staying >= len(rows)]
    return rows
