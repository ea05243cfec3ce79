"""Telling near-duplicates: questions that would show a target its own solution if they were its context."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

EDGE_PUNCTUATION = ".,;:!?\"'`\u2018\u2019\u201c\u201d"
"""Dropped at the edges of words only: inside them it carries meaning, as in 1.5 or H3C-C:O."""
GENERAL_STEM_WORDS = 11
"""Longest stem that may ask different things of different options, "Which of the following statements is true?".

Own choice. Of the stems that MMLU-Pro's test repeats with other options, the longer ones are as a rule copies
with reworded options; the general ones are shorter, and so are a few copies, which stay undetected.
"""
SHARED_OPTIONS = 0.5
"""Share of the shorter option list from which on equal general stems are near-duplicates; own choice."""


@dataclass(frozen=True)
class Wording:
    """A question's text and options without case, white space, edge punctuation, Unicode variants and order."""

    stem: str
    options: frozenset[str]

    @classmethod
    def of(cls, question: str, options: Sequence[str]) -> Self:
        """Normalise the wording of a question."""
        return cls(_normalise(question), frozenset(_normalise(option) for option in options))

    def near(self, other: Self) -> bool:
        """Return whether two questions are near-duplicates: the same stem, which is long or comes with like options.

        Fuzzy matching of stems is of no use here: templated pools ("In the X school, what does Y turn into?") consist
        of *different* questions that differ in one word. Half of the options is enough because a second copy often
        comes with other distractors. Questions without options go by the stem alone.
        """
        if self.stem != other.stem:
            return False
        shared = len(self.options & other.options)
        general = len(self.stem.split()) <= GENERAL_STEM_WORDS
        return not general or shared >= SHARED_OPTIONS * min(len(self.options), len(other.options))


def _normalise(text: str) -> str:
    words = (word.strip(EDGE_PUNCTUATION) for word in unicodedata.normalize("NFKC", text).casefold().split())
    return " ".join(word for word in words if word)
