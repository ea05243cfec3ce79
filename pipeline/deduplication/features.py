"""Questions as sets of hashed word n-grams that weigh the more the rarer they are.

With the weight log(N / df) the wording that a template repeats weighs next to nothing and its fillings nearly all, so
that one measure serves both prose and templated questions. Stem and options are kept apart: two questions may share one
and differ in the other.
"""

import re
import unicodedata
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from string import ascii_lowercase
from typing import Final, Self

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint32]
"""Sorted different hashes of n-grams."""

# Scripts without spaces: a character is a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_EDGES = ".,;:!?\"'`()[]{}\u2018\u2019\u201c\u201d"
"""Dropped at the edges of words only: inside them it carries meaning, as in 1.5 or C(=O)O."""
_PLAIN = re.compile(r"[^\W\d_]+(?:[-'\u2019][^\W\d_]+)*")
MAX_WORD_CHARS: Final = 25
"""Longer words are sequences or names of compounds; own choice."""
PIECE_CHARS: Final = 8
_LABEL = re.compile(r"\(?([A-Za-z])[.)]\s+")
_DF_BITS: Final = 22
"""Log of the size of the table of document frequencies: 16 MiB whatever the pool; a collision lowers a weight."""


def words(text: str) -> list[str]:
    """Return the words of ``text`` without case, Unicode variants and outer punctuation."""
    found = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return [word.strip(_EDGES) or word for word in found]


def is_plain(word: str) -> bool:
    """Return whether a word's form does not tell that it fills a template: no number, formula, SMILES or sequence."""
    return len(word) <= MAX_WORD_CHARS and _PLAIN.fullmatch(word) is not None


def ngrams(tokens: Sequence[str], size: int) -> Iterator[str]:
    """Yield all runs of 1 to ``size`` words; a long word, such as a sequence, counts as many, as it says as much."""
    tokens = [piece for token in tokens for piece in _pieces(token)]
    for length in range(1, size + 1):
        for start in range(len(tokens) - length + 1):
            yield " ".join(tokens[start : start + length])


def unlabelled(options: Iterable[str]) -> list[str]:
    """Return ``options`` without labels such as "(A) ", "B. " or "c) ", where these are the first letters."""
    options = list(options)
    labels = [_LABEL.match(option) for option in options]
    letters = sorted(label[1].casefold() for label in labels if label)
    if len(options) < 2 or letters != list(ascii_lowercase[: len(options)]):  # as in E. coli, B. subtilis
        return options
    return [_LABEL.sub("", option, count=1) for option in options]


def _pieces(word: str) -> list[str]:
    if len(word) <= MAX_WORD_CHARS:
        return [word]
    return [word[start : start + PIECE_CHARS] for start in range(0, len(word), PIECE_CHARS)]


def _hashes(grams: Iterable[str], salt: int) -> Hashes:
    return np.unique(np.fromiter((zlib.crc32(gram.encode(), salt) for gram in grams), dtype=np.uint32))


@dataclass(frozen=True)
class Features:
    """The n-grams of one question; the same n-gram in stem and options has different hashes."""

    stem: Hashes
    options: Hashes

    @classmethod
    def of(
        cls, question: str, options: Iterable[str], ngram_size: int, template: Collection[str] = frozenset()
    ) -> Self:
        """Hash a question, the words of ``template`` left out of its stem.

        The options' order does not matter, as no n-gram spans two of them, nor do their labels.
        """
        runs = (list(run) for masked, run in groupby(words(question), key=template.__contains__) if not masked)
        stem = (gram for run in runs for gram in ngrams(run, ngram_size))
        grams = (gram for option in unlabelled(options) for gram in ngrams(words(option), ngram_size))
        return cls(_hashes(stem, 0), _hashes(grams, 1))

    @property
    def all(self) -> Hashes:
        """N-grams of stem and options together."""
        return np.concatenate([self.stem, self.options])


class RarityWeights:
    """Weights log(N / df) over a corpus, from a hashed table of fixed size."""

    def __init__(self, documents: Iterable[Features]) -> None:
        self.n_documents = 0
        self._df = np.zeros(1 << _DF_BITS, dtype=np.int32)
        for document in documents:
            self.n_documents += 1
            self._df[np.unique(document.all & np.uint32(self._df.size - 1))] += 1

    def __call__(self, hashes: Hashes) -> npt.NDArray[np.float64]:
        """Return the weight of each n-gram (nats); one that was never counted weighs as if it stood once."""
        df = np.maximum(self._df[hashes & np.uint32(self._df.size - 1)], 1)
        return np.log((self.n_documents + 1) / df)  # + 1: n-grams that all questions share keep a trace of weight

    def shared(self, a: Hashes, b: Hashes) -> float:
        """Return the weight of the n-grams that stand in both sets."""
        return float(self(np.intersect1d(a, b, assume_unique=True)).sum())

    def jaccard(self, a: Hashes, b: Hashes) -> float:
        """Return the weight that two sets share over the weight of their union; 1 for two empty sets."""
        shared = self.shared(a, b)
        union = float(self(a).sum() + self(b).sum()) - shared
        return shared / union if union else 1.0
