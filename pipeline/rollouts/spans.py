"""Which tokens of a prompt are the question's stem.

A token belongs to it if any of its characters does. Pinned by ``tests/rollouts/test_spans.py``.
"""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]
"""First position and the one after the last."""

_MESSAGE = "\0"
"""Stands for the user message where the template's own text is looked for: no template holds it or strips it."""


def stem_span(tokenizer: PreTrainedTokenizerBase, question: str, prompt: str, prompt_ids: Sequence[int]) -> Span | None:
    """Return which of ``prompt_ids``, a chat of the one message ``prompt``, hold the ``question`` that it begins with.

    None where that cannot be told exactly: the tokenizer knows no characters of its tokens (slow ones), the template
    changes the message, or something stands before the question.
    """
    if not getattr(tokenizer, "is_fast", False):
        return None
    before, placed, _ = _render(tokenizer, _MESSAGE).partition(_MESSAGE)
    text = _render(tokenizer, prompt)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    if not placed or not text.startswith(before + question) or list(encoded["input_ids"]) != list(prompt_ids):
        return None
    start, stop = len(before), len(before) + len(question)
    held = [i for i, (first, end) in enumerate(encoded["offset_mapping"]) if first < stop and end > start]
    return (held[0], held[-1] + 1) if held else None


def _render(tokenizer: PreTrainedTokenizerBase, user_message: str) -> str:
    chat = [{"role": "user", "content": user_message}]
    return str(tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))
