"""Probabilities of the option letters at the place where a response states its answer.

A tokenizer has several tokens for one letter: bare, after a space, or joined to an opening bracket. All that end in
the letter and begin with nothing but such marks are counted for it.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from pipeline.prompts import LETTERS

_LEADS = ("", " ", "(", " (", "[", "{", ":", "*", "**", "\n")


@dataclass(frozen=True)
class LetterTokens:
    """Tokens that state a letter, in order of letters."""

    ids: tuple[int, ...]
    """Token ids, each once."""
    letters: tuple[int, ...]
    """Index of the letter that each token states."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, n_letters: int) -> "LetterTokens":
        """Find the tokens of the first ``n_letters`` letters; letters without a token of their own have none."""
        found: dict[int, int] = {}
        for index, letter in enumerate(LETTERS[:n_letters]):
            for lead in _LEADS:
                token = tokenizer.encode(lead + letter, add_special_tokens=False)[-1]
                if tokenizer.decode([token]).strip(" \n([{:*") == letter:
                    found[token] = index
        return cls(tuple(found), tuple(found.values()))

    def stated_by(self, token: int) -> int | None:
        """Return the index of the letter that a token states; none for other tokens."""
        return self.letters[self.ids.index(token)] if token in self.ids else None

    def option_probs(self, probs: torch.Tensor, n_options: int) -> list[float] | None:
        """Return the probability of each option's letter, normalised over the options.

        ``probs [W]`` are the probabilities of ``ids`` where a letter is stated. None when a letter has no token.
        """
        if not set(range(n_options)) <= set(self.letters):
            return None
        mass = torch.zeros(max(self.letters) + 1, dtype=torch.float64)
        options = mass.index_add_(0, torch.tensor(self.letters), probs.double())[:n_options]
        return (options / options.sum()).tolist()


def token_at(tokenizer: PreTrainedTokenizerBase, response_ids: Sequence[int], character: int) -> int:
    """Return the position of the response token that holds a character of the decoded response."""

    def decoded_length(n_tokens: int) -> int:
        return len(decode(tokenizer, response_ids[:n_tokens]))

    return bisect_left(range(1, len(response_ids)), character + 1, key=decoded_length)


def decode(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    """Return the text of tokens without special tokens, white space kept as it is."""
    return str(tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))
