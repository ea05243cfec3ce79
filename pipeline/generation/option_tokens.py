"""Probabilities of the options at the place where a response states its answer, by letter or by text.

A tokenizer has several tokens for one letter: bare, after a space, or joined to an opening bracket. All that end in
the letter and begin with nothing but such marks are counted for it. A statement by text is judged by its first token,
which tells the options apart unless two of them begin alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from pipeline.prompts import LETTERS

_LEADS = ("", " ", "(", " (", "[", "{", ":", "*", "**", "\n")


@dataclass(frozen=True)
class OptionTokens:
    """Tokens that state an option in one form, by letter or by text."""

    options: Mapping[int, int]
    """Index of the option that each token states; tokens in a fixed order."""

    @classmethod
    def by_letter(cls, tokenizer: PreTrainedTokenizerBase, n_options: int) -> "OptionTokens":
        """Find the tokens of the first ``n_options`` letters; letters without a token of their own have none."""
        found: dict[int, int] = {}
        for index, letter in enumerate(LETTERS[:n_options]):
            for lead in _LEADS:
                token = tokenizer.encode(lead + letter, add_special_tokens=False)[-1]
                if tokenizer.decode([token]).strip(" \n([{:*") == letter:
                    found[token] = index
        return cls(found)

    @classmethod
    def by_text(cls, tokenizer: PreTrainedTokenizerBase, options: Sequence[str]) -> "OptionTokens":
        """Find the first token of each option's text, bare and after a space; none when two options begin alike."""
        found: dict[int, int] = {}
        for index, text in enumerate(options):
            for token in sorted({_first_token(tokenizer, text), _first_token(tokenizer, f" {text}")}):
                if found.setdefault(token, index) != index:
                    return cls({})
        return cls(found)

    def option_probs(self, stated: int, probs: torch.Tensor, n_options: int) -> list[float] | None:
        """Return the probability of each option, normalised over the options.

        ``probs [W]`` are the probabilities of the tokens where ``stated`` was drawn. None when that token states no
        option, or when an option has no token.
        """
        if stated not in self.options or set(self.options.values()) != set(range(n_options)):
            return None
        mass = torch.zeros(n_options, dtype=torch.float64)
        mass.index_add_(0, torch.tensor(list(self.options.values())), probs.double())
        return (mass / mass.sum()).tolist()


def _first_token(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """Return the first token that holds more than white space."""
    tokens = tokenizer.encode(text, add_special_tokens=False)
    return next((token for token in tokens if tokenizer.decode([token]).strip()), tokens[0])


def decode(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    """Return the text of tokens without special tokens, white space kept as it is."""
    return str(tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))
