"""One reference world under one seed: the runs of stages that a comparison consists of, and what no stage makes.

All runs share one store under ``data/worlds``, so whatever is equal between arms, seeds and studies is made once, and a
study that was cut off goes on where it was. Worlds beside the shipped one are made when they are first asked for. Gold
answers are read here to judge, and by the arms called oracles to choose, which no user could do.
"""

import random
import re
from collections.abc import Mapping
from functools import cached_property

import polars as pl

from pipeline.answers.read import read_answers
from pipeline.chain import materialize, run_chain
from pipeline.config import Config
from pipeline.digests import digest_json
from pipeline.evaluation.grade import grade
from pipeline.evaluation.metrics import IN_DOMAIN, OUT_OF_DOMAIN
from pipeline.models import LanguageModel, load_model
from pipeline.paths import PROJECT_ROOT
from pipeline.presets import load_config
from pipeline.prompts import render_demonstrations
from pipeline.reference.make import SHIPPED, make_world
from pipeline.reference.world import World, WorldConfig, in_domain_questions, pool_questions
from pipeline.rollouts.sample import Asking, sample_rollouts
from pipeline.seeding import derive_seed
from pipeline.stages import open_store, stage_of
from pipeline.store.artifact import Artifact
from pipeline.store.store import Run
from pipeline.teacher.context import assemble_contexts
from pipeline.teacher.questions import Demonstration, Questions
from pipeline.teacher.run import stored_questions

SAME_SUBJECT = "same subject"
WORLDS = PROJECT_ROOT / "data" / "worlds"
BUILDER = "stem_overlap"
"""Builder under which rules and oracles are compared."""
N_BELIEFS = 4
"""Samples per question with context, for the rules and oracles that look at them."""


class Chain:
    """A run of the stages, made as far as it is asked for."""

    def __init__(self, config: Config, run: Run) -> None:
        self.config = config
        self.run = run

    def make(self, *stages: str) -> Artifact:
        """Make stages in this order, unless they stand, and return the artifact of the last one."""
        for spec in map(stage_of, stages):
            made = materialize(spec, getattr(self.config, spec.key), self.config.model, self.run)
        return made.artifact

    def choose(self, ids: pl.Series, name: str) -> None:
        """Put questions chosen by hand in the place of those that the run's rule selected."""
        by_rule = self.run.require("curated_subset")
        rows = by_rule.read().with_columns(
            pl.lit(None).alias(column) for column in ("score", "rank", "distance_to_cut")
        )
        rows = rows.with_columns(selected=pl.col("id").is_in(ids.implode()), reason=pl.lit(name))
        provenance = {**by_rule.manifest.provenance, "chosen": sorted(ids)}
        fingerprint, settings = digest_json(provenance)[:32], by_rule.manifest.settings
        if self.run.store.find("curated_subset", fingerprint) is None:
            with self.run.store.write("curated_subset", fingerprint, settings, provenance) as writer:
                writer.append("curated_subset", rows)
        self.run.show("curated_subset", fingerprint)

    def questions(self) -> Questions:
        """Return the pool with its votes, rollouts and neurons."""
        names = ("pool", "rollouts", "pseudo_labels", "neuron_scores")
        return stored_questions({name: self.run.require(name) for name in names})


class ReferenceRun:
    """A world, its model, and the chain up to the beliefs under one seed."""

    def __init__(self, world: int, seed: int) -> None:
        self.name = f"world-{world}-seed-{seed}"
        self.seed = seed
        self.folder = SHIPPED if world == 0 else make_world(world, WORLDS / str(world))
        self.world = World(WorldConfig(seed=world))
        self.store = open_store(WORLDS)
        self.base = self.chain("base")

    def chain(self, name: str, *overrides: str) -> Chain:
        """Return a run of the preset on this world with the settings ``section.key=value``, made up to the beliefs."""
        chain = self._begin(name, *overrides)
        run_chain(chain.config, chain.run, last="context_beliefs")
        return chain

    def _begin(self, name: str, *overrides: str) -> Chain:
        settings = (
            f"model.path={self.folder / 'model'}",
            f"raw_pool.path={self.folder / 'pool.jsonl'}",
            f"tests.in_domain_path={self.folder / 'in_domain_test.jsonl'}",
            f"tests.out_of_domain_path={self.folder / 'out_of_domain_test.jsonl'}",
            f"context_beliefs.builder={BUILDER}",
            "context_beliefs.balance_answers=false",
            f"context_beliefs.n_samples={N_BELIEFS}",
        )
        run = self.store.run(f"{self.name}-{re.sub('[^A-Za-z0-9._]+', '-', name)}")
        return Chain(load_config(overrides=(*settings, *overrides), seed=self.seed), run)

    @cached_property
    def model(self) -> LanguageModel:
        """The untouched model."""
        return load_model(self.base.config.model)

    @cached_property
    def subjects(self) -> dict[str, str]:
        """Subject of every question of pool and in-domain test, by the question's text."""
        questions = [*pool_questions(self.world), *in_domain_questions(self.world)]
        return {question.question: question.subject for question in questions}

    @cached_property
    def pool(self) -> Questions:
        """The pool with its votes, rollouts and neurons."""
        return self.base.questions()

    @cached_property
    def gold(self) -> pl.DataFrame:
        """Gold labels of the pool, of schema GOLD_LABELS."""
        return self.base.run.require("gold_labels").read()

    @cached_property
    def held_out(self) -> Chain:
        """The chain on the in-domain test in the place of the pool: targets of contexts, with neurons of their own."""
        path = f"raw_pool.path={self.folder / 'in_domain_test.jsonl'}"
        chain = self._begin("in-domain test", path, "pool.drop_near_duplicates=false")
        chain.make("raw_pool", "pool", "rollouts", "answers", "pseudo_labels", "neuron_scores")
        return chain

    def contexts(self, builder: str) -> pl.DataFrame:
        """Return contexts of the in-domain test by a builder, or for ``same subject`` examples drawn by their subject.

        The latter is the reference for retrieval, since no user knows the subjects. Columns of TEACHER_CONTEXTS, at
        least ``id``, ``privileged_context`` and ``demonstration_ids``.
        """
        targets, config = self.held_out.questions(), self.base.config
        if builder == SAME_SUBJECT:
            return self._same_subject(targets.pool)
        name, _, balanced = builder.partition(" ")
        section = config.teacher_contexts.model_copy(update={"builder": name, "balance_answers": bool(balanced)})
        return assemble_contexts(targets, self.pool, self.model.tokenizer, section, config.rollouts)

    def _same_subject(self, targets: pl.DataFrame) -> pl.DataFrame:
        texts = dict(self.pool.pool.select("id", "question").iter_rows())
        shown: dict[str, list[Demonstration]] = {}
        for demonstration in self.pool.demonstrations():
            shown.setdefault(self.subjects[texts[demonstration.id]], []).append(demonstration)
        rows = []
        for target, text in targets.select("id", "question").iter_rows():
            examples = shown.get(self.subjects[text], [])
            rng = random.Random(derive_seed(self.seed, SAME_SUBJECT, target))
            chosen = rng.sample(examples, min(len(examples), self.base.config.teacher_contexts.n_demonstrations))
            context = render_demonstrations([(example.prompt, example.response) for example in chosen])
            rows.append((target, context, [example.id for example in chosen]))
        columns = ["id", "privileged_context", "demonstration_ids"]
        return pl.DataFrame(rows, schema=columns, orient="row").sort("id")

    def ask(self, contexts: Mapping[str, str], name: str, n_samples: int) -> pl.DataFrame:
        """Return graded samples (schema PREDICTIONS) of the untouched model on the in-domain test with contexts."""
        section = self.base.config.rollouts.model_copy(update={"n_samples": n_samples})
        questions = self.base.run.require("tests").read(IN_DOMAIN)
        rollouts = pl.concat(sample_rollouts(questions, self.model, Asking.of(section, section), contexts))
        return self._graded(rollouts, questions, self.base.run.require("test_labels").read(IN_DOMAIN), name, IN_DOMAIN)

    def answers(self, chain: Chain, predictions: str, name: str) -> pl.DataFrame:
        """Return graded samples (schema PREDICTIONS) of both tests from a stage of predictions, which is made."""
        made, tests, gold = chain.make(predictions), chain.run.require("tests"), chain.run.require("test_labels")
        splits = (IN_DOMAIN, OUT_OF_DOMAIN)
        return pl.concat(
            [self._graded(made.read(split), tests.read(split), gold.read(split), name, split) for split in splits]
        )

    def answers_in_pool(self) -> dict[str, pl.DataFrame]:
        """Return graded samples of the pool, ``alone`` and ``informed`` by contexts of ``BUILDER``, as many of each."""
        rollouts = {
            "alone": self.pool.rollouts.filter(pl.col("sample") < N_BELIEFS).collect(),
            "informed": self.base.run.require("context_beliefs").read("context_rollouts"),
        }
        return {name: self._graded(rows, self.pool.pool, self.gold, name, "pool") for name, rows in rollouts.items()}

    def _graded(
        self, rollouts: pl.DataFrame, questions: pl.DataFrame, gold: pl.DataFrame, name: str, split: str
    ) -> pl.DataFrame:
        return grade(read_answers(rollouts, questions, self.model.tokenizer), gold, name, split)
