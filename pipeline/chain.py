"""The stages against a store of artifacts: ``run_chain`` is the whole method in plain calls.

The Dagster assets call the same functions one by one; ``pipeline.stage`` decides what needs no computing.
"""

from collections.abc import Callable
from dataclasses import fields

import polars as pl

from pipeline.adapters.config import DistilledAdapterConfig, SftAdapterConfig
from pipeline.adapters.job import DistillationJob, SftJob
from pipeline.adapters.process import run_training, training_job
from pipeline.artifacts import ArtifactStore, ArtifactWriter
from pipeline.beliefs.beliefs import sample_beliefs
from pipeline.beliefs.config import ContextBeliefsConfig
from pipeline.causal.config import CausalCheckConfig
from pipeline.causal.silence import silence_responses, summarise
from pipeline.config import Config
from pipeline.deduplication.config import PoolConfig
from pipeline.deduplication.prune import Pruned, prune
from pipeline.deduplication.statistics import describe
from pipeline.errors import ArtifactError, QuarantineError, SourceError
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.evaluate import evaluate, held_out_tests
from pipeline.held_out.questions import HeldOut
from pipeline.model_config import ModelConfig
from pipeline.models import load_model, load_tokenizer
from pipeline.neurons.config import NeuronScoresConfig
from pipeline.neurons.score import NeuronScorer
from pipeline.neurons.shards import check_unscored, score_shards
from pipeline.pool.config import RawPoolConfig
from pipeline.pool.ingest import Ingestion, check_counts
from pipeline.rollouts.config import RolloutsConfig
from pipeline.rollouts.sampler import sample_rollouts
from pipeline.selection.config import CuratedSubsetConfig
from pipeline.selection.confounds import confounds
from pipeline.selection.rule import Signals
from pipeline.selection.subset import select_subset
from pipeline.stage import Outcome, Stage
from pipeline.teacher.config import TeacherContextsConfig
from pipeline.teacher.context import assemble_contexts
from pipeline.teacher.echo import answer_echo
from pipeline.teacher.questions import Questions
from pipeline.votes.config import PseudoLabelsConfig
from pipeline.votes.vote import vote


def raw_pool(store: ArtifactStore, section: RawPoolConfig) -> Outcome:
    """Read the source into the artifacts ``raw_pool``, ``gold_labels`` and ``quarantine``.

    Raises QuarantineError when too many rows are refused; the quarantine is stored even then.
    """
    ingestion = Ingestion(section)
    stage = Stage("raw_pool", store, section, sources=ingestion.sources)
    companions = ("gold_labels", "quarantine")
    provenance = stage.provenance()
    fingerprint = stage.fingerprint(provenance)
    standing = [store.current(name, fingerprint) for name in ("raw_pool", *companions)]
    if standing[0] and all(standing):
        return Outcome(standing[0], cached=True)
    with (
        store.write("quarantine", fingerprint, provenance) as quarantine,
        store.write("raw_pool", fingerprint, provenance) as kept,
        store.write("gold_labels", fingerprint, provenance) as gold,
    ):
        for batch in ingestion:
            kept.append("raw_pool", batch.raw_pool)
            gold.append("gold_labels", batch.gold_labels)
            quarantine.append("quarantine", batch.quarantine)
        counts, refusal = ingestion.counts, _refusal(ingestion, section)
        kept.discarded = gold.discarded = refusal is not None
        kept.notes = quarantine.notes = counts.rows() | ingestion.tables()
        gold.notes = {"usable": counts.gold, "unusable": counts.unusable_gold}
    if refusal:
        raise refusal
    return Outcome(store.require("raw_pool"), cached=False)


def pool(store: ArtifactStore, section: PoolConfig) -> Outcome:
    """Leave out near-duplicates, contaminated questions and held-out tests; raises SourceError when none is left."""
    layout = RawPoolConfig(**store.require("raw_pool").provenance["config"])
    unanswered = layout.model_copy(update={"answer_column": None})
    held_out = [HeldOut(path, "pool.decontaminate_against", unanswered) for path in section.decontaminate_against]

    def compute(writer: ArtifactWriter) -> None:
        questions = [questions for questions, _ in (test.read() for test in held_out)]
        pruned = prune(store.read("raw_pool"), pl.concat(questions) if questions else None, section)
        if pruned.pool.is_empty():
            raise SourceError(f"no question is left in the pool: {pruned.reasons()}; change the section 'pool'")
        for table in fields(Pruned):
            writer.append(table.name, getattr(pruned, table.name))
        writer.notes = describe(pruned)

    return Stage("pool", store, section, sources=[source for test in held_out for source in test.sources]).run(compute)


def rollouts(store: ArtifactStore, model: ModelConfig, section: RolloutsConfig) -> Outcome:
    """Sample responses to every pool question."""

    def compute(writer: ArtifactWriter) -> None:
        for rows in sample_rollouts(store.read("pool"), load_model(model), section):
            writer.append("rollouts", rows)

    return Stage("rollouts", store, section, model).run(compute)


def pseudo_labels(store: ArtifactStore, section: PseudoLabelsConfig) -> Outcome:
    """Vote over the rollouts of every question."""

    def compute(writer: ArtifactWriter) -> None:
        columns = ["id", "sample", "answer", "answer_index", "logprobs"]
        writer.append("pseudo_labels", vote(store.scan("rollouts").select(columns).collect(), section))

    return Stage("pseudo_labels", store, section).run(compute)


def neuron_scores(store: ArtifactStore, model: ModelConfig, section: NeuronScoresConfig) -> Outcome:
    """Score the neurons behind every rollout, shard by shard; a run that was cut off goes on at its last shard.

    Raises ArtifactError for rollouts of other weights, and ModelError when too few rollouts can be scored.
    """
    stage = Stage("neuron_scores", store, section, model, resumable=True)
    _check_same_weights(store, stage)

    def compute(writer: ArtifactWriter) -> None:
        score_shards(store.scan("rollouts"), NeuronScorer(load_model(model), section), writer)

    outcome = stage.run(compute)
    check_unscored(outcome.manifest.notes, section)
    return outcome


def context_beliefs(store: ArtifactStore, model: ModelConfig, section: ContextBeliefsConfig) -> Outcome:
    """Sample every pool question with its teacher's context; an empty table, without the model, for no samples.

    Raises ArtifactError when the rollouts to compare with are of other weights.
    """
    stage = Stage("context_beliefs", store, section, model)
    _check_same_weights(store, stage)

    def compute(writer: ArtifactWriter) -> None:
        if section.n_samples:
            sampling = RolloutsConfig(**store.require("rollouts").provenance["config"])
            beliefs = sample_beliefs(stored_questions(store), load_model(model), section, sampling)
            writer.append("context_beliefs", beliefs)

    return stage.run(compute)


def curated_subset(store: ArtifactStore, section: CuratedSubsetConfig) -> Outcome:
    """Choose the training questions."""

    def compute(writer: ArtifactWriter) -> None:
        signals = Signals(
            pool=store.read("pool"),
            pseudo_labels=store.read("pseudo_labels"),
            neuron_sizes=store.read("neuron_scores", "neuron_sizes"),
            neuron_scores=store.scan("neuron_scores"),
            stem_scores=store.scan("neuron_scores", "stem_scores"),
            beliefs=store.read("context_beliefs"),
            seed=section.seed,
        )
        subset = select_subset(signals, section)
        writer.append("curated_subset", subset)
        writer.notes = confounds(subset, signals)

    return Stage("curated_subset", store, section).run(compute)


def stored_questions(store: ArtifactStore) -> Questions:
    """Return the pool with its votes, rollouts and neurons."""
    return Questions(
        pool=store.read("pool"),
        pseudo_labels=store.read("pseudo_labels"),
        rollouts=store.scan("rollouts"),
        neuron_scores=store.scan("neuron_scores"),
        stem_scores=store.scan("neuron_scores", "stem_scores"),
        rationale_scores=store.scan("neuron_scores", "rationale_scores"),
        stem_states=store.scan("neuron_scores", "stem_states"),
    )


def teacher_contexts(store: ArtifactStore, model: ModelConfig, section: TeacherContextsConfig) -> Outcome:
    """Assemble the teacher's context of every selected question."""

    def compute(writer: ArtifactWriter) -> None:
        questions = stored_questions(store)
        selected = store.read("curated_subset").filter(pl.col("selected"))["id"]
        contexts = assemble_contexts(questions.only(selected), questions, load_tokenizer(model), section)
        writer.append("teacher_contexts", contexts)
        writer.notes = answer_echo(contexts, questions.pseudo_labels, questions.pool, questions.rollouts)

    return Stage("teacher_contexts", store, section, model).run(compute)


def distillation_job(store: ArtifactStore, model: ModelConfig, section: DistilledAdapterConfig) -> Outcome | list[str]:
    """Return the standing adapter, or the command of the training process that makes it."""
    contexts = TeacherContextsConfig(**store.require("teacher_contexts").provenance["config"])
    return training_job(Stage("distilled_adapter", store, section, model), DistillationJob, teacher_contexts=contexts)


def sft_job(store: ArtifactStore, model: ModelConfig, section: SftAdapterConfig) -> Outcome | list[str]:
    """Return the standing adapter, an empty artifact where it is not wanted, or the command that makes it.

    Raises ArtifactError for rollouts of other weights.
    """
    stage = Stage("sft_adapter", store, section, model)
    if not section.enabled:
        return stage.run(lambda writer: writer.notes.update(skipped="sft_adapter.enabled is false"))
    _check_same_weights(store, stage)
    return training_job(stage, SftJob)


def distilled_adapter(store: ArtifactStore, model: ModelConfig, section: DistilledAdapterConfig) -> Outcome:
    """Run the training process, unless its adapter stands; raises TrainingError when it fails."""
    return run_training(store, "distilled_adapter", distillation_job(store, model, section))


def sft_adapter(store: ArtifactStore, model: ModelConfig, section: SftAdapterConfig) -> Outcome:
    """The same for the model fine-tuned on majority votes, which distillation is compared with."""
    return run_training(store, "sft_adapter", sft_job(store, model, section))


def check_tests(store: ArtifactStore, section: EvaluationConfig) -> None:
    """Raise SourceError for a test that the evaluation could not read: before the training, not after it."""
    for test in held_out_tests(store, section).values():
        test.check()


def evaluation(store: ArtifactStore, model: ModelConfig, section: EvaluationConfig) -> Outcome:
    """Compare the untouched, the fine-tuned and the distilled model on held-out questions."""
    sources = [source for test in held_out_tests(store, section).values() for source in test.sources]
    stage = Stage("evaluation", store, section, model, sources=sources)
    return stage.run(lambda writer: evaluate(store, model, section, writer))


def causal_check(store: ArtifactStore, model: ModelConfig, section: CausalCheckConfig) -> Outcome:
    """Silence the neurons that carry responses, against random ones: does the signal mean anything for this model?"""
    stage = Stage("causal_check", store, section, model)
    _check_same_weights(store, stage)
    if store.require("neuron_scores").provenance.get("inputs") != {"rollouts": store.require("rollouts").digest}:
        raise ArtifactError(
            f"{store.path('neuron_scores')} is of other rollouts than {store.path('rollouts')}: materialize "
            "'neuron_scores' again"
        )

    def compute(writer: ArtifactWriter) -> None:
        position = NeuronScoresConfig(**store.require("neuron_scores").provenance["config"]).position
        rollouts, scores = store.scan("rollouts"), store.scan("neuron_scores")
        table = silence_responses(rollouts, scores, load_model(model), section, position)
        writer.append("causal_check", table)
        writer.notes = summarise(table, section)

    return stage.run(compute)


def run_chain(config: Config, store: ArtifactStore, last: str = "evaluation") -> dict[str, Outcome]:
    """Run the stages in order up to ``last``, optional ones left out, and return the outcome of each."""
    model = config.model
    steps: dict[str, Callable[[], Outcome]] = {
        "raw_pool": lambda: raw_pool(store, config.raw_pool),
        "pool": lambda: pool(store, config.pool),
        "rollouts": lambda: rollouts(store, model, config.rollouts),
        "pseudo_labels": lambda: pseudo_labels(store, config.pseudo_labels),
        "neuron_scores": lambda: neuron_scores(store, model, config.neuron_scores),
        "context_beliefs": lambda: context_beliefs(store, model, config.context_beliefs),
        "curated_subset": lambda: curated_subset(store, config.curated_subset),
        "teacher_contexts": lambda: teacher_contexts(store, model, config.teacher_contexts),
        "distilled_adapter": lambda: distilled_adapter(store, model, config.distilled_adapter),
        "sft_adapter": lambda: sft_adapter(store, model, config.sft_adapter),
        "evaluation": lambda: evaluation(store, model, config.evaluation),
    }
    outcomes = {}
    for name, step in steps.items():
        if name == "distilled_adapter" and last == "evaluation":
            check_tests(store, config.evaluation)
        outcomes[name] = step()
        if name == last:
            break
    return outcomes


def _refusal(ingestion: Ingestion, section: RawPoolConfig) -> QuarantineError | None:
    try:
        check_counts(ingestion.counts, section)
    except QuarantineError as error:
        return error
    return None


def _check_same_weights(store: ArtifactStore, stage: Stage) -> None:
    """Raise ArtifactError when the rollouts are not the responses of the stage's model."""
    sampled = store.require("rollouts").provenance.get("model")
    if sampled is not None and sampled != stage.provenance()["model"]:
        raise ArtifactError(
            f"{store.path('rollouts')} was sampled with other weights or in another dtype than model.path = "
            f"'{stage.model.path if stage.model else ''}' has now: materialize 'rollouts' again"
        )
