"""The stage on disk: what is shown, what becomes of what the model writes, and that the next pool takes it."""

import json

import polars as pl
import pyarrow.parquet as pq
import pytest

from pipeline.chain import materialize
from pipeline.deduplication.config import PoolConfig
from pipeline.neurons.config import NeuronScoresConfig
from pipeline.pool.config import RawPoolConfig
from pipeline.pool.ingest import Ingestion
from pipeline.pool.question import content_id
from pipeline.proposals import run as proposals_run
from pipeline.proposals.checks import known
from pipeline.proposals.config import ProposedQuestionsConfig
from pipeline.proposals.run import POOL_FILE, draw_examples
from pipeline.proposals.stage import PROPOSED_QUESTIONS_STAGE
from pipeline.rollouts.config import RolloutsConfig
from pipeline.rollouts.schemas import ROLLOUTS
from pipeline.stages import stage_of
from pipeline.table import conform
from pipeline.teacher.questions import Questions

METALS = ["iron", "tin", "zinc", "lead", "gold", "silver"]
OPTIONS = ["a solid", "a liquid"]


def asked(metal):
    question = f"At room temperature, in what state is the metal {metal}?"
    row = {"question": question, "options": OPTIONS, "permutation": [0, 1], "domain": "metals"}
    return {"id": content_id(question, OPTIONS), "group": metal, **row}


def written(metal):
    return f"At room temperature, in what state is the metal {metal}?\nA. a solid\nB. a liquid<|end|>"


POOL = [asked(metal) for metal in METALS]
LEAK = "Which of both is the usual condition of elemental copper on a summer's day in Cyprus?"
TESTS = [{**asked("copper"), "id": content_id(LEAK, OPTIONS), "question": LEAK}]
LEAK_WRITTEN = f"{LEAK}\nA. a solid\nB. a liquid<|end|>"
SAMPLING = RolloutsConfig(n_samples=3, max_new_tokens=4, instruction="Say.")


@pytest.fixture
def propose(run, put, tiny_config):
    put(run, "pool", settings=PoolConfig().model_dump(mode="json"), pool=POOL)
    put(run, "tests", in_domain=TESTS)
    for name, section in (("rollouts", SAMPLING), ("answers", None), ("neuron_scores", NeuronScoresConfig(top_k=9))):
        spec = stage_of(name)
        materialize(spec, section or spec.section(), tiny_config, run)
    labels = [{"id": row["id"], "state": "majority", "pseudo_answer": "a solid", "representative": 0} for row in POOL]
    put(run, "pseudo_labels", inputs=["rollouts", "answers"], pseudo_labels=labels)

    def run_stage(**changes):
        section = ProposedQuestionsConfig(n_proposals=7, max_new_tokens=8).model_copy(update=changes)
        return materialize(PROPOSED_QUESTIONS_STAGE, section, tiny_config, run).artifact

    return run_stage


def test_a_model_that_writes_nonsense_proposes_nothing_and_every_proposal_has_its_reason(propose):
    artifact = propose()
    table = artifact.read()
    assert table["proposal"].to_list() == [f"proposal-{number:06}" for number in range(7)]
    assert set(table["state"]) <= {"unfinished", "malformed"}
    assert (artifact.folder / POOL_FILE).read_text() == ""
    assert artifact.manifest.notes["accepted"] == 0
    assert sum(artifact.manifest.notes["states"].values()) == 7
    rollouts = artifact.read("proposal_rollouts").sort("id")
    for examples, prompt in zip(table["examples"], rollouts["prompt"], strict=True):
        assert len(set(examples)) == 3
        shown = [row["question"] for key in examples for row in POOL if row["id"] == key]
        assert [prompt.index(question) for question in shown] == sorted(prompt.index(question) for question in shown)
        assert prompt.endswith(ProposedQuestionsConfig().instruction)


@pytest.fixture
def let_write(monkeypatch, tiny):
    """Return a function that makes the model write texts: of each table by question, or by question and sample."""

    def write_instead(texts):
        real = proposals_run.sample_shards

        def sample(task, table, *others):
            real(task, table, *others)
            for path in task.writer.shards(table):
                rows = pl.read_parquet(path)
                told = [texts(table, *row) for row in rows.select("id", "sample").iter_rows()]
                ids = [tiny.tokenizer.encode(text, add_special_tokens=False) for text in told]
                watched = [
                    [-1.0] * len(watched) * sum(token in watched for token in row)
                    for watched, row in zip(rows["watched_ids"], ids, strict=True)
                ]
                told_rows = rows.with_columns(
                    watched_logprobs=pl.Series(watched, dtype=pl.List(pl.Float32)),
                    response=pl.Series([text.removesuffix("<|end|>") for text in told]),
                    response_ids=pl.Series(ids, dtype=pl.List(pl.Int32)),
                    logprobs=pl.Series([[-1.0] * len(row) for row in ids], dtype=pl.List(pl.Float32)),
                    finish_reason=pl.Series(["stop" if text.endswith("<|end|>") else "length" for text in told]),
                )
                pq.write_table(conform(told_rows, ROLLOUTS, where=table), path)

        monkeypatch.setattr(proposals_run, "sample_shards", sample)

    return write_instead


def test_every_fate_is_told_and_the_next_pool_takes_what_was_accepted(propose, let_write, tmp_path):
    metals = ("mercury", "mercury", "copper", "tin", "gallium", "cobalt")
    proposals = [LEAK_WRITTEN if metal == "copper" else written(metal) for metal in metals]
    proposals += ["no question<|end|>", written("radium").removesuffix("<|end|>")]
    answers = {asked("mercury")["id"]: "BBB", asked("gallium")["id"]: "AB?", asked("cobalt")["id"]: "B??"}

    def text(table, key, sample):
        if table == "proposal_rollouts":
            return proposals[int(key.rpartition("-")[2])]
        return f"Answer: {answers[key][sample]}<|end|>"

    let_write(text)
    artifact = propose(n_proposals=8, n_samples=3)
    table = artifact.read()
    assert table["state"].to_list() == [
        *("accepted", "repeated", "contaminated", "in_pool", "no_majority", "too_few_agree"),
        *("malformed", "unfinished"),
    ]
    assert table.row(0, named=True)["pseudo_answer"] == "a liquid"
    assert table["vote_share"].to_list() == [1.0, None, None, None, 1 / 3, 1 / 3, None, None]
    assert table["detail"].to_list()[1:4] == [asked("mercury")["id"], TESTS[0]["id"], asked("tin")["id"]]
    lines = (artifact.folder / POOL_FILE).read_text(encoding="utf-8").splitlines()
    mercury = asked("mercury")
    assert [json.loads(line) for line in lines] == [
        {"question": mercury["question"], "options": OPTIONS, "domain": "metals"}
    ]
    old = tmp_path / "old.jsonl"
    old.write_text(json.dumps({"question": "Is tin a metal?", "options": None, "answer": "yes"}) + "\n")
    pool, gold = Ingestion(RawPoolConfig(path=str(old), further_paths=[str(artifact.folder / POOL_FILE)])).read()
    assert pool["id"].to_list()[1] == mercury["id"]
    assert pool["domain"].to_list() == ["", "metals"]
    assert gold.height == 1  # what a model proposed has no gold


def test_too_easy_questions_can_be_left_out(propose, let_write):
    let_write(lambda table, *_: written("mercury") if table == "proposal_rollouts" else "Answer: B<|end|>")
    assert propose(n_proposals=1, n_samples=2, max_vote_share=0.9).read()["state"].to_list() == ["too_many_agree"]


def test_of_near_duplicates_the_pools_own_question_or_the_first_id_is_kept():
    def row(question, key):
        return {**asked("tin"), "id": key, "question": question, "options": []}

    long = "Describe in one word what becomes of pure gallium metal when it is held in a warm human hand for long"
    pool = pl.DataFrame([{**row(f"{long} time?", "m"), "group": "m"}])
    new = pl.DataFrame([row(f"{long} time, please?", "a"), row("Who was first to find radium?", "b")])
    found = known(new.select(pool.columns), pool, pool.clear(), PoolConfig())
    assert found.rows() == [("a", "near_duplicate", "m")]
    both = pl.DataFrame([row(f"{long} time?", "z"), row(f"{long} time, please?", "y"), row("Who found radium?", "b")])
    found = known(both, pool.filter(pl.lit(False)), pool.clear(), PoolConfig())
    assert found.rows() == [("z", "near_duplicate", "y")]


def test_examples_are_drawn_by_identity_and_again_where_more_are_wanted():
    questions = Questions(pl.DataFrame(POOL), pl.DataFrame(), pl.LazyFrame(), pl.LazyFrame())
    few = draw_examples(questions, ProposedQuestionsConfig(n_examples=1, n_proposals=4))
    many = draw_examples(questions, ProposedQuestionsConfig(n_examples=1, n_proposals=8))
    assert many.head(4).equals(few)
    assert sorted(key for [key] in many["examples"][:6]) == sorted(row["id"] for row in POOL)
    assert many["examples"].to_list()[6:] == many["examples"].to_list()[:2]
    turned = Questions(pl.DataFrame(POOL[::-1]), pl.DataFrame(), pl.LazyFrame(), pl.LazyFrame())
    assert draw_examples(turned, ProposedQuestionsConfig(n_examples=1, n_proposals=8)).equals(many)
    other = draw_examples(questions, ProposedQuestionsConfig(n_examples=1, n_proposals=8, seed=1))
    assert not other.equals(many)
