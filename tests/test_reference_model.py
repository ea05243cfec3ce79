"""The shipped model on the shipped questions: votes mislead, context helps, confidence varies.

``benchmarks.comparison`` measures the same and more, with intervals; here the files themselves are held to it, by fewer
samples, so the limits leave room for chance: W1, W3 and W5 of its results file.
"""

import random
from dataclasses import replace

import polars as pl
import pytest

from pipeline.answers.read import read_answers
from pipeline.evaluation.confidence import option_confidence, vote_confidence
from pipeline.evaluation.grade import grade
from pipeline.held_out.questions import find_held_out
from pipeline.models import load_model
from pipeline.presets import load_config
from pipeline.prompts import render_demonstrations
from pipeline.reference.world import World, WorldConfig, in_domain_questions, pool_questions
from pipeline.rollouts.sample import Asking, sample_rollouts
from pipeline.votes.config import PseudoLabelsConfig
from pipeline.votes.vote import ballots, vote

pytestmark = pytest.mark.slow
CONFIG = load_config()


def ask(model, questions, n_samples, contexts=None):
    """Return rollouts and answers."""
    asking = replace(Asking.of(CONFIG.rollouts, CONFIG.rollouts), n_samples=n_samples)
    rollouts = pl.concat(sample_rollouts(questions, model, asking, contexts))
    return rollouts, read_answers(rollouts, questions, model.tokenizer)


@pytest.fixture(scope="module")
def model():
    return load_model(CONFIG.model)


@pytest.fixture(scope="module")
def pool(model):
    """Pool questions with gold, votes and the representative response."""
    questions, gold = find_held_out(CONFIG.raw_pool.path, "raw_pool.path", CONFIG.raw_pool).read()
    rollouts, answers = ask(model, questions, CONFIG.rollouts.n_samples)
    counted = ballots(rollouts.lazy(), answers.lazy())
    labels = vote(counted, PseudoLabelsConfig()).with_columns(sample="representative")
    shown = rollouts.select("id", "sample", "prompt", "response")
    joined = questions.join(gold, on="id").join(labels, on="id").join(shown, on=["id", "sample"], how="left")
    return joined.with_columns(right=pl.col("pseudo_index").eq_missing(pl.col("gold_index")))


@pytest.fixture(scope="module")
def test_set():
    return find_held_out(CONFIG.tests.in_domain_path, "tests.in_domain_path", CONFIG.raw_pool).read()


@pytest.fixture(scope="module")
def answers(model, test_set):
    questions, gold = test_set
    return grade(ask(model, questions, 8)[1], gold, "untouched", "in_domain")


def test_votes_mislead(pool, answers):
    assert 0.40 <= answers["correct"].mean() <= 0.70
    assert 0.50 <= pool["right"].mean() <= 0.75
    confidently_wrong = (pl.col("state") == "majority") & ~pl.col("right") & (pl.col("vote_share") >= 0.8)
    assert pool.select(confidently_wrong.mean()).item() >= 0.10


def test_examples_of_the_same_subject_help(model, pool, test_set, answers):
    world = World(WorldConfig())
    subject = {q.question: q.subject for q in [*pool_questions(world), *in_domain_questions(world)]}
    examples: dict[str, list[tuple[str, str]]] = {}
    for text, prompt, response in pool.drop_nulls("response").select("question", "prompt", "response").iter_rows():
        examples.setdefault(subject[text], []).append((prompt, response))
    questions, gold = test_set
    contexts = {
        key: render_demonstrations(random.Random(text).sample(examples[subject[text]], 3))
        for key, text in questions.select("id", "question").iter_rows()
    }
    informed = grade(ask(model, questions, 4, contexts)[1], gold, "teacher", "in_domain")
    assert informed["correct"].mean() - answers["correct"].mean() >= 0.15


@pytest.mark.parametrize(("confidence", "n_bins"), [(option_confidence, 8), (vote_confidence, 5)])
def test_confidence_varies(answers, confidence, n_bins):
    table = confidence(answers)
    assert table.select(pl.col("confidence").is_between(0.1, 0.9, closed="none").mean()).item() >= 0.25
    assert table.select((pl.col("confidence") * 15).floor().n_unique()).item() >= n_bins
