"""Batches within a budget of padded tokens, which shrinks when the device's memory does not suffice."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import torch

from pipeline.errors import ModelError


class Named(Protocol):
    """A sequence that an error message can name."""

    @property
    def id(self) -> str:
        """Question."""

    @property
    def sample(self) -> int:
        """Number of the rollout within its question."""


Item = TypeVar("Item", bound=Named)
Result = TypeVar("Result")


class TokenBudget:
    """Padded tokens that a batch may hold; lowered for good when a batch exceeds the memory."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def run(
        self, ordered: Sequence[Item], n_tokens: Callable[[Item], int], compute: Callable[[Sequence[Item]], Result]
    ) -> Iterator[tuple[Sequence[Item], Result]]:
        """Yield consecutive batches of ``ordered`` with what ``compute`` made of them.

        ``n_tokens`` is the length that a sequence needs; a batch is padded to its longest. It holds one sequence at
        least. When one exceeds the device's memory, it and those after it are made with half the budget.
        Raises ModelError when one sequence alone does not fit.
        """
        done = 0
        while done < len(ordered):
            count, longest = 1, n_tokens(ordered[done])
            for following in ordered[done + 1 :]:
                longest = max(longest, n_tokens(following))
                if (count + 1) * longest > self.tokens:
                    break
                count += 1
            batch = ordered[done : done + count]
            try:
                result = compute(batch)
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                self._halve(batch, max(map(n_tokens, batch)), error)
            else:
                yield batch, result
                done += count
                continue
            torch.cuda.empty_cache()  # only after the handler, whose traceback holds the batch's tensors

    def _halve(self, batch: Sequence[Named], n_tokens: int, error: Exception) -> None:
        if len(batch) == 1:
            raise ModelError(
                f"question '{batch[0].id}', sample {batch[0].sample}: out of memory with one sequence of {n_tokens} "
                "tokens: lower max_new_tokens or use a device with more memory"
            ) from error
        self.tokens = len(batch) // 2 * n_tokens


def _is_out_of_memory(error: RuntimeError) -> bool:
    # A subclass of RuntimeError on accelerators; the allocator of the CPU has no error class of its own.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
