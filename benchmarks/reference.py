"""One reference world under one seed: what all arms of a comparison share, and how an arm is made and judged.

Worlds beside the shipped one are made when they are first asked for and kept under ``data/worlds``; what is computed
for a world and a seed stands beside them, so that a study that was cut off goes on where it was. Gold answers are read
here to judge, and by the arms called oracles to choose, which no user could do.
"""

import random
import tempfile
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import polars as pl
from pipeline.artifacts import ArtifactStore
from pipeline.evaluation.evaluate import read_tests
from pipeline.rollouts.sampler import sample_rollouts
from transformers import PrinterCallback

from pipeline.adapters.job import DistillationJob, SftJob, TrainingJob
from pipeline.chain import context_beliefs, run_chain, stored_questions
from pipeline.config import Config
from pipeline.evaluation.grade import grade
from pipeline.evaluation.metrics import IN_DOMAIN
from pipeline.models import LanguageModel, load_model
from pipeline.neurons.score import NeuronScorer
from pipeline.paths import PROJECT_ROOT
from pipeline.pool.schemas import RAW_POOL
from pipeline.presets import load_config
from pipeline.prompts import render_demonstrations, render_teacher_prompt
from pipeline.reference.make import SHIPPED, make_world
from pipeline.reference.world import World, WorldConfig, in_domain_questions, pool_questions
from pipeline.section import Section
from pipeline.seeding import derive_seed
from pipeline.selection.rule import Signals
from pipeline.selection.subset import select_subset
from pipeline.teacher.context import assemble_contexts
from pipeline.teacher.questions import Demonstration, Questions
from pipeline.votes.vote import vote
from training.objectives import OBJECTIVES

POOL = "pool"
SAME_SUBJECT = "same subject"
WORLDS = PROJECT_ROOT / "data" / "worlds"
N_BELIEFS = 4
"""Samples per question with context, for the rules and oracles that look at them."""


class ReferenceRun:
    """A world, its model, and the chain up to the neuron scores under one seed."""

    def __init__(self, world: int, seed: int) -> None:
        self.seed = seed
        self.folder = SHIPPED if world == 0 else make_world(world, WORLDS / str(world))
        self.world = World(WorldConfig(seed=world))
        self.store = ArtifactStore(WORLDS / f"runs/world-{world}-seed-{seed}")
        self.config = self._configure()
        run_chain(self.config, self.store, last="neuron_scores")

    def _configure(self) -> Config:
        overrides = (
            f"model.path={self.folder / 'model'}",
            f"raw_pool.path={self.folder / 'pool.jsonl'}",
            f"evaluation.in_domain_path={self.folder / 'in_domain_test.jsonl'}",
            f"evaluation.out_of_domain_path={self.folder / 'out_of_domain_test.jsonl'}",
        )
        return load_config(overrides=overrides, seed=self.seed)

    @cached_property
    def subjects(self) -> dict[str, str]:
        """Subject of every question of pool and in-domain test, by the question's text."""
        questions = [*pool_questions(self.world), *in_domain_questions(self.world)]
        return {question.question: question.subject for question in questions}

    @cached_property
    def pool(self) -> Questions:
        """The pool with its rollouts and neurons."""
        return stored_questions(self.store)

    @cached_property
    def gold(self) -> pl.DataFrame:
        """Gold labels of the pool, of schema GOLD_LABELS."""
        return self.store.read("gold_labels")

    @cached_property
    def tests(self) -> dict[str, tuple[pl.DataFrame, pl.DataFrame]]:
        """Questions and gold labels of both tests."""
        return read_tests(self.store, self.config.evaluation)

    @cached_property
    def held_out(self) -> Questions:
        """The in-domain test with rollouts and neurons of its own, as a target of contexts."""
        questions, _ = self.tests[IN_DOMAIN]
        base = self.base()
        rollouts = pl.concat(sample_rollouts(questions, base, self.config.rollouts, progress=False))
        scores = NeuronScorer(base, self.config.neuron_scores).score(rollouts)
        return Questions(
            pool=questions,
            pseudo_labels=vote(rollouts, self.config.pseudo_labels),
            rollouts=rollouts.lazy(),
            neuron_scores=scores.neuron_scores.lazy(),
            stem_scores=scores.stem_scores.lazy(),
            rationale_scores=scores.rationale_scores.lazy(),
            stem_states=scores.stem_states.lazy(),
        )

    def together(self) -> Questions:
        """Return pool and in-domain test as one."""
        both = (self.pool, self.held_out)
        return replace(
            self.pool,
            pool=pl.concat([questions.pool.select(*RAW_POOL.names, "group") for questions in both]),
            pseudo_labels=pl.concat([questions.pseudo_labels for questions in both], how="vertical_relaxed"),
            rollouts=pl.concat([questions.rollouts for questions in both], how="vertical_relaxed"),
        )

    def base(self) -> LanguageModel:
        """Load the untouched model."""
        return load_model(self.config.model)

    def signals(self, builder: str) -> Signals:
        """Return what rules may look at, beliefs with ``builder`` among them."""
        section = self.config.context_beliefs.model_copy(update={"builder": builder, "n_samples": N_BELIEFS})
        context_beliefs(self.store, self.config.model, section)
        return Signals(
            pool=self.pool.pool,
            pseudo_labels=self.pool.pseudo_labels,
            neuron_sizes=self.store.read("neuron_scores", "neuron_sizes"),
            neuron_scores=self.pool.neuron_scores,
            stem_scores=self.pool.stem_scores,
            beliefs=self.store.read("context_beliefs"),
            seed=self.seed,
        )

    def contexts(self, builder: str, targets: Questions) -> pl.DataFrame:
        """Return TEACHER_CONTEXTS of targets for a builder, or for ``same subject``: examples drawn by their subject.

        The latter is the reference for retrieval, since no user knows the subjects.
        """
        if builder == SAME_SUBJECT:
            return self._same_subject(targets)
        name, _, balanced = builder.partition(" ")
        section = self.config.teacher_contexts.model_copy(update={"builder": name, "balance_answers": bool(balanced)})
        return assemble_contexts(targets, self.pool, self.base().tokenizer, section)

    def _same_subject(self, targets: Questions) -> pl.DataFrame:
        texts = dict(self.pool.pool.select("id", "question").iter_rows())
        shown: dict[str, list[Demonstration]] = {}
        for demonstration in self.pool.demonstrations():
            shown.setdefault(self.subjects[texts[demonstration.id]], []).append(demonstration)
        rows = []
        for target, text, prompt in targets.pool.select("id", "question", "prompt").iter_rows():
            others = [example for example in shown.get(self.subjects[text], []) if example.id != target]
            rng = random.Random(derive_seed(self.seed, SAME_SUBJECT, target))
            chosen = rng.sample(others, min(len(others), self.config.teacher_contexts.n_demonstrations))
            context = render_demonstrations([(example.prompt, example.response) for example in chosen])
            rows.append((target, prompt, context, [example.id for example in chosen]))
        columns = ["id", "prompt", "privileged_context", "demonstration_ids"]
        return pl.DataFrame(rows, schema=columns, orient="row").sort("id")

    def ask(
        self, model: LanguageModel, name: str, split: str, contexts: pl.DataFrame | None = None, n_samples: int = 8
    ) -> pl.DataFrame:
        """Return graded samples (schema PREDICTIONS) of a test, or of the ``pool``, with contexts if given."""
        questions, gold = (self.pool.pool, self.gold) if split == POOL else self.tests[split]
        if contexts is not None:
            pairs = contexts.select("privileged_context", "prompt").iter_rows()
            told = contexts.select("id", prompt=pl.Series([render_teacher_prompt(*pair) for pair in pairs]))
            questions = questions.drop("prompt").join(told, on="id")
        sampling = self.config.rollouts.model_copy(update={"n_samples": n_samples, "seed": self.seed})
        return grade(pl.concat(sample_rollouts(questions, model, sampling, progress=False)), gold, name, split)

    def subset(self, rule: str, signals: Signals) -> pl.DataFrame:
        """Return CURATED_SUBSET of a rule, under the preset's budget and this run's seed."""
        return select_subset(signals, self.config.curated_subset.model_copy(update={"rule": rule}))

    def distil(self, contexts: pl.DataFrame) -> LanguageModel:
        """Train the model towards itself with contexts (schema TEACHER_CONTEXTS) under the preset's settings."""
        section = self.config.distilled_adapter
        return self._train(DistillationJob, contexts, settings=section, teacher_contexts=self.config.teacher_contexts)

    def fine_tune(self, ids: pl.Series, learning_rate: float) -> LanguageModel:
        """Train the model on the majority rollouts of questions."""
        section = self.config.sft_adapter.model_copy(update={"learning_rate": learning_rate})
        majority = self.pool.pseudo_labels.lazy().select("id", sample="representative").drop_nulls()
        rollouts = self.pool.rollouts.join(majority, on=["id", "sample"], how="semi")
        chosen = rollouts.filter(pl.col("id").is_in(ids.implode())).select("id", "prompt_ids", "response_ids")
        return self._train(SftJob, chosen.collect().sort("id"), settings=section)

    def _train(self, kind: type[TrainingJob], questions: pl.DataFrame, **settings: Section) -> LanguageModel:
        model = self.base()
        with tempfile.TemporaryDirectory() as folder:
            job = kind(
                artifact="trial",
                store_root=Path(folder),
                fingerprint="",
                provenance={},
                model=self.config.model,
                curated_subset=self.config.curated_subset,
                work_dir=Path(folder),
                **settings,
            )
            trainer = OBJECTIVES[job.objective].build(job, questions, model)
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        return LanguageModel(trainer.model.merge_and_unload().eval(), model.tokenizer)
