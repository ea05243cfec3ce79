"""Words and weights: what is compared, and how rarity counts."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.deduplication.features import Features, RarityWeights, is_plain, ngrams, unlabelled, words

TEXTS = st.text(alphabet="abAB .,", max_size=30)


def test_words_lose_case_outer_punctuation_and_unicode_variants_only():
    assert words("(The) pH of H\u2082O, at 1.5 bar\u2026?") == ["the", "ph", "of", "h2o", "at", "1.5", "bar"]
    assert words("什么是DNA?") == ["什", "么", "是", "dna"]
    assert words("A < B ? !") == ["a", "<", "b", "?", "!"]


def test_long_words_count_as_many():
    assert len(list(ngrams(["m" * 80], 1))) == 10


def test_form_tells_fillings():
    assert all(map(is_plain, ["substance", "non-linear", "bayes\u2019s"]))
    assert not any(map(is_plain, ["3", "h2o", "c1ccccc1", "o=c(o)c", "[na+]", "m" * 26]))


@given(TEXTS, st.lists(TEXTS, max_size=4), st.randoms())
def test_order_of_options_and_case_do_not_matter(question, options, rng):
    shuffled = [option.upper() for option in options]
    rng.shuffle(shuffled)
    a, b = Features.of(question, options, 2), Features.of(question.upper(), shuffled, 2)
    assert np.array_equal(a.stem, b.stem)
    assert np.array_equal(a.options, b.options)


@pytest.mark.parametrize("label", ["({}) ", "{}. ", "{}) "])
def test_labels_of_options_do_not_matter(label):
    options = ["iron", "gold ore", "zinc"]
    labelled = [label.format(letter) + option for letter, option in zip("ABC", options, strict=True)]
    assert np.array_equal(Features.of("", labelled, 2).options, Features.of("", options, 2).options)
    assert unlabelled(labelled) == options
    assert unlabelled(labelled[::-1]) == options[::-1]


@pytest.mark.parametrize("options", [["E. coli", "B. subtilis"], ["A. thaliana"], ["A. iron", "gold"], []])
def test_what_is_no_label_stays(options):
    assert unlabelled(options) == options


def test_template_words_break_ngrams():
    masked = Features.of("what is the mass of iron oxide", [], 2, {"what", "is", "the", "of"})
    assert np.array_equal(
        masked.stem, np.unique(np.concatenate([Features.of(t, [], 2).stem for t in ("mass", "iron oxide")]))
    )


def test_weights_are_log_n_over_df():
    weights = RarityWeights(Features.of(f"melt {filling}", [], 1) for filling in ("amber", "basalt", "coral"))
    melt, amber = (Features.of(word, [], 1).stem for word in ("melt", "amber"))
    assert np.isclose(weights(melt), math.log(4 / 3))
    assert np.isclose(weights(amber), math.log(4))
    both, other = (Features.of(f"melt {word}", [], 1).stem for word in ("amber", "basalt"))
    assert np.isclose(weights.jaccard(both, other), math.log(4 / 3) / (math.log(4 / 3) + 2 * math.log(4)))
    assert weights.jaccard(both, both) == weights.jaccard(both[:0], both[:0]) == 1
