import polars as pl
import pytest

from pipeline.selection.confounds import confounds
from pipeline.selection.rule import Signals


def signals(lengths, n_votes=5):
    """Build signals of questions whose two rollouts have these mean lengths."""
    ids = [f"q{number}" for number in range(len(lengths))]
    rollouts = [(key, s, n + 2 * s - 1, n) for key, n in zip(ids, lengths, strict=True) for s in range(2)]
    labels = {"id": ids, "n_votes": n_votes, "vote_share": [0.1 * n for n in lengths], "entropy": 0.0}
    return Signals(
        pool=pl.DataFrame({"id": ids}),
        pseudo_labels=pl.DataFrame(labels),
        neuron_sizes=pl.DataFrame(rollouts, ["id", "sample", "n_response_tokens", "self_certainty"], orient="row"),
        neuron_scores=pl.LazyFrame(),
        stem_scores=pl.LazyFrame(),
        beliefs=pl.DataFrame(),
    )


def subset(scores):
    return pl.DataFrame({"id": [f"q{number}" for number in range(len(scores))], "score": scores})


def test_correlations_are_over_the_questions_that_have_a_score():
    notes = confounds(subset([1.0, 3.0, 2.0, None, 4.0]), signals([5, 6, 7, 1, 8]))
    assert notes["score_vs_length"] == notes["score_vs_vote_share"] == pytest.approx(0.8)
    assert notes["score_vs_self_certainty"] == pytest.approx(0.8)
    assert notes["score_vs_entropy"] is None


def test_questions_without_a_vote_have_neither_share_nor_entropy():
    notes = confounds(subset([1.0, 3.0, 2.0]), signals([5, 6, 7], n_votes=0))
    assert notes["score_vs_vote_share"] is None
    assert notes["score_vs_length"] == pytest.approx(0.5)
    assert "warning" not in notes


@pytest.mark.parametrize(("lengths", "kept"), [([1, 2, 3, 4], "short"), ([4, 3, 2, 1], "long")])
def test_a_score_that_follows_the_length_is_said_in_words(lengths, kept):
    warning = confounds(subset([1.0, 2.0, 3.0, 4.0]), signals(lengths))["warning"]
    assert f"questions with {kept} responses are kept first" in warning
    assert "curated_subset.rule=length" in warning
