"""Which tokens of a response state its answer.

A token belongs to a span of text if any of its characters does. Pinned by ``tests/answers/test_spans.py``.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from pipeline.models import decode

Span = tuple[int, int]
"""First position and the one after the last."""


def token_span(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int], characters: Span) -> Span:
    """Return which of ``token_ids`` hold the given characters of their decoded text.

    Sampled tokens need not be those that the tokenizer would take for the text, so they are decoded, not encoded anew.
    """
    text, (start, stop) = decode(tokenizer, token_ids), characters

    def first(reached: Callable[[str], bool]) -> int:
        """Return how many tokens it takes; once reached, more tokens change nothing."""
        return 1 + bisect_left(range(1, len(token_ids)), True, key=lambda n: reached(decode(tokenizer, token_ids[:n])))

    # Half a character decodes to a replacement, so it has begun but is not yet whole.
    begun = first(lambda head: len(head) > start and head.startswith(text[:start]))
    return begun - 1, first(lambda head: head.startswith(text[:stop]))
