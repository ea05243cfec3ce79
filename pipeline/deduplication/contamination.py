"""Contamination: pool questions that are an evaluation question, verbatim or slightly changed.

For each pool question the best matching evaluation question is looked up in an inverted index of the evaluation's
n-grams and compared by the weight of what they share. Rare n-grams weigh more, words of a template that many questions
share do not count at all, and options have their say: a shared passage with another question about it is no leak.
"""

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import chain
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.sparse import csr_array

from pipeline.deduplication.config import Comparison
from pipeline.deduplication.families import templates
from pipeline.deduplication.features import Features, Hashes, RarityWeights, is_plain, words
from pipeline.deduplication.schemas import CONTAMINATION

BATCH_ROWS: Final = 200
"""Pool questions matched at once; bounds the table of scores, at most this times the evaluation questions."""
N_CANDIDATES: Final = 5
"""Evaluation questions compared in detail per pool question; own choice."""
EMBEDDED_WEIGHT: Final = 50.0
"""Weight (nats, about eight rare n-grams) from which on a question counts as found inside a longer one; own choice."""
MIN_STEM: Final = 0.5
MIN_OVERLAP: Final = 0.55
"""What the stems must share for a hit, and what fillings and options must, each: more than one of two; own choice."""
MIN_TEMPLATE_FILLINGS: Final = 0.8
"""Fillings of a template that must agree, in their order: all of four, four of five; own choice."""
TELLING_WEIGHT: Final = 10.0
TELLING_SHARE: Final = 0.1
"""Options of this weight (nats), or this share of the stem's, must agree; less says nothing, as Yes and No do."""
MAX_SHARED_CHARS: Final = 200
NO_EVIDENCE: Final = pl.DataFrame(CONTAMINATION.empty_table())


class Match(NamedTuple):
    """How much of an evaluation question a pool question repeats, as shares of weight."""

    score: float
    stem: float
    options: float | None
    fillings: float
    templated: bool
    """Whether the evaluation question is one of a template."""


def contaminated(pool: pl.DataFrame, evaluation: pl.DataFrame, config: Comparison) -> pl.DataFrame:
    """Return one row of schema CONTAMINATION for every question of ``pool`` that stands in ``evaluation``.

    Both have the columns id, question and options, ``evaluation`` also source. Rows come sorted by id; the order of the
    inputs does not matter.
    """
    evaluation = evaluation.sort("id", "source")
    index = _EvaluationIndex(pool, evaluation, config)
    rows = []
    for batch in pool.sort("id").select("id", "question", "options").iter_slices(BATCH_ROWS):
        for (i, question, options), candidates in zip(batch.iter_rows(), index.candidates(batch), strict=True):
            matches = [(index.match(question, options, candidate), candidate) for candidate in candidates]
            hits = [(match, candidate) for match, candidate in matches if index.is_hit(match)]
            if hits:
                match, best = max(hits, key=lambda hit: (hit[0].score, -hit[1]))
                found = evaluation.row(best, named=True)
                shared = _longest_shared(words(question), index.stems[best])
                rows.append((i, found["id"], found["source"], match.score, match.stem, match.options, shared))
    return pl.DataFrame(rows, schema=NO_EVIDENCE.schema, orient="row")


class _EvaluationIndex:
    """The evaluation questions by their n-grams, template words left out."""

    def __init__(self, pool: pl.DataFrame, evaluation: pl.DataFrame, config: Comparison) -> None:
        self.config = config
        self.weights = RarityWeights(chain(self._features(pool), self._features(evaluation)))
        self.stems = [words(question) for question in evaluation["question"]]
        found = templates([*self.stems, *(words(question) for question in pool["question"])])[: len(self.stems)]
        self.templates = [frozenset(template.words) if template.found else frozenset[str]() for template in found]
        rows = evaluation.select("question", "options").iter_rows()
        self.documents = [
            Features.of(question, options, config.ngram_size, template)
            for (question, options), template in zip(rows, self.templates, strict=True)
        ]
        self._vocabulary = np.unique(np.concatenate([document.all for document in self.documents]))
        matrix = self._matrix(self.documents)
        matrix.data = self.weights(self._vocabulary)[matrix.indices]
        self._totals = np.maximum(matrix.sum(axis=1), 1e-9)
        self._postings = matrix.T.tocsr()

    def candidates(self, batch: pl.DataFrame) -> Iterator[list[int]]:
        """Yield, for each question of a batch, the evaluation questions of which it holds most."""
        shared = (self._matrix(list(self._features(batch))) @ self._postings).tocsr()
        shared.sort_indices()
        for start, end in zip(shared.indptr[:-1], shared.indptr[1:], strict=True):
            rows = shared.indices[start:end]
            order = np.argsort(-shared.data[start:end] / self._totals[rows], kind="stable")
            yield rows[order[:N_CANDIDATES]].tolist()

    def match(self, question: str, options: Sequence[str], candidate: int) -> Match:
        """Compare a pool question with one evaluation question."""
        own = Features.of(question, options, self.config.ngram_size, self.templates[candidate])
        theirs = self.documents[candidate]
        shared, stem_weight = self._overlap(own.stem, theirs.stem)
        stem = _share(shared, stem_weight)
        fillings = self._fillings(words(question), candidate)
        templated = bool(self.templates[candidate])
        if not own.options.size or not theirs.options.size:
            return Match(stem, stem, None, fillings, templated)
        in_options = self.weights.shared(own.options, theirs.options)
        fewer, more = sorted(float(self.weights(side.options).sum()) for side in (own, theirs))
        # Against the fewer: the same question may come with four options here and with ten there.
        score = _share(shared + in_options, stem_weight + fewer)
        telling = more >= min(TELLING_WEIGHT, TELLING_SHARE * stem_weight)
        return Match(score, stem, _share(in_options, fewer) if telling else None, fillings, templated)

    def is_hit(self, match: Match) -> bool:
        """Return whether a match is contamination.

        One of several numbers changed, or a "not" put in, is no excuse outside of templates: whoever has learnt the
        answer to the one has an advantage with the other.
        """
        if match.fillings < (MIN_TEMPLATE_FILLINGS if match.templated else MIN_OVERLAP):
            return False
        enough = match.stem >= MIN_STEM and (match.options is None or match.options >= MIN_OVERLAP)
        return enough and match.score >= self.config.contamination_threshold

    def _overlap(self, own: Hashes, theirs: Hashes) -> tuple[float, float]:
        """Return the shared weight and what it is to be compared with.

        That is the weight of the evaluation's text; but a word or two are found in many texts, so text around a short
        one counts against it.
        """
        whole, around = float(self.weights(theirs).sum()), float(self.weights(own).sum())
        return self.weights.shared(own, theirs), max(whole, min(around, EMBEDDED_WEIGHT))

    def _fillings(self, own: Sequence[str], candidate: int) -> float:
        """Return the share of the evaluation's fillings that the pool question repeats.

        Those are all words that are not of the template, where one was found, and must come in the same order: whether
        iron is heavier than gold is another question than whether gold is heavier than iron. Elsewhere they are
        numbers, formulas and the like, the rare ones with more weight.
        """
        template, theirs = self.templates[candidate], self.stems[candidate]
        if template:
            mine, asked = ([word for word in stem if word not in template] for stem in (own, theirs))
            blocks = SequenceMatcher(None, mine, asked, autojunk=False).get_matching_blocks()
            return _share(sum(block.size for block in blocks), len(asked))
        texts = (" ".join(word for word in stem if not is_plain(word)) for stem in (own, theirs))
        numbers, needed = (Features.of(text, (), 1).stem for text in texts)
        return _share(self.weights.shared(numbers, needed), float(self.weights(needed).sum()))

    def _features(self, rows: pl.DataFrame) -> Iterator[Features]:
        for question, options in rows.select("question", "options").iter_rows():
            yield Features.of(question, options, self.config.ngram_size)

    def _matrix(self, documents: Sequence[Features]) -> csr_array:
        """Return which n-grams of the index's vocabulary stand in which document."""
        columns = np.concatenate([document.all for document in documents])
        rows = np.repeat(np.arange(len(documents)), [document.all.size for document in documents])
        places: npt.NDArray[np.int64] = np.searchsorted(self._vocabulary, columns)
        known = np.append(self._vocabulary, 0)[places] == columns
        shape = (len(documents), self._vocabulary.size)
        return csr_array((np.ones(known.sum()), (rows[known], places[known])), shape=shape)


def _share(shared: float, whole: float) -> float:
    return shared / whole if whole else 1.0


def _longest_shared(own: Sequence[str], theirs: Sequence[str]) -> str:
    run = SequenceMatcher(None, own, theirs, autojunk=False).find_longest_match()
    return " ".join(own[run.a : run.a + run.size])[:MAX_SHARED_CHARS]
