"""Tokens by which a response can state an option, by letter or by text, and the options' probabilities by them.

A tokenizer has several tokens for one letter: bare, after a space, or joined to an opening bracket. All that end in
the letter and begin with nothing but such marks are counted for it. A statement by text is judged by its first token,
which tells the options apart unless two of them begin alike.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import exp

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

    def option_probs(self, stated: int, logprobs: Mapping[int, float], n_options: int) -> list[float] | None:
        """Return the probability of each option, normalised over the options.

        ``logprobs`` are those of the tokens where ``stated`` was drawn (nats). None when that token states no option,
        or when an option has no token.
        """
        if stated not in self.options or set(self.options.values()) != set(range(n_options)):
            return None
        highest = max(logprobs[token] for token in self.options)
        mass = [0.0] * n_options
        for token, index in self.options.items():
            mass[index] += exp(logprobs[token] - highest)
        return [share / sum(mass) for share in mass]


@dataclass(frozen=True)
class Forms:
    """The tokens of both forms for options in the order of their letters."""

    by_letter: OptionTokens
    by_text: OptionTokens

    @property
    def token_ids(self) -> tuple[int, ...]:
        """All different tokens that state an option."""
        return tuple(dict.fromkeys([*self.by_letter.options, *self.by_text.options]))


def option_forms(tokenizer: PreTrainedTokenizerBase) -> Callable[[tuple[str, ...]], Forms]:
    """Return a function from options, in the order of their letters, to the tokens that state them."""
    by_letter = lru_cache(lambda n_options: OptionTokens.by_letter(tokenizer, n_options))
    # Questions come one after another, so few need to be remembered.
    return lru_cache(lambda options: Forms(by_letter(len(options)), OptionTokens.by_text(tokenizer, options)))


def _first_token(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """Return the first token that holds more than white space."""
    tokens = tokenizer.encode(text, add_special_tokens=False)
    return next((token for token in tokens if tokenizer.decode([token]).strip()), tokens[0])
