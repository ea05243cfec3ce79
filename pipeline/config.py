"""The one typed configuration tree: a flat, frozen section per stage, named like its asset.

Defaults are the published settings where the paper gives them (arXiv 2607.02460 and its re-implementation), but for the
selection rule and the context builder, which ``benchmarks.comparison`` chose; a preset (``presets/*.yaml``) states only
what differs, and ``pipeline.presets`` loads it.
"""

from typing import Self

from pipeline.adapters.config import CeilingAdapterConfig, DistilledAdapterConfig, RivalAdapterConfig
from pipeline.answers.config import AnswersConfig
from pipeline.beliefs.config import ContextBeliefsConfig
from pipeline.causal.config import CausalCheckConfig
from pipeline.checks.config import ChecksConfig
from pipeline.deduplication.config import PoolConfig
from pipeline.evaluation.config import EvaluationConfig
from pipeline.held_out.config import TestsConfig
from pipeline.lift.config import TeacherLiftConfig
from pipeline.model_config import ModelConfig
from pipeline.neurons.config import NeuronScoresConfig
from pipeline.pool.config import RawPoolConfig
from pipeline.predictions.config import PredictionsConfig
from pipeline.proposals.config import ProposedQuestionsConfig
from pipeline.rollouts.config import RolloutsConfig
from pipeline.rounds.config import RoundsConfig
from pipeline.section import Section
from pipeline.selection.config import CuratedSubsetConfig
from pipeline.teacher.config import TeacherContextsConfig
from pipeline.votes.config import PseudoLabelsConfig


class Config(Section):
    """Everything that determines a run."""

    model: ModelConfig = ModelConfig()
    """The language model."""
    raw_pool: RawPoolConfig = RawPoolConfig()
    """Ingestion."""
    pool: PoolConfig = PoolConfig()
    """Near-duplicates, contamination, tests split off."""
    tests: TestsConfig = TestsConfig()
    """Held-out questions."""
    rollouts: RolloutsConfig = RolloutsConfig()
    """Sampling."""
    answers: AnswersConfig = AnswersConfig()
    """Reading of answers."""
    pseudo_labels: PseudoLabelsConfig = PseudoLabelsConfig()
    """The vote."""
    neuron_scores: NeuronScoresConfig = NeuronScoresConfig()
    """Neuron contributions."""
    context_beliefs: ContextBeliefsConfig = ContextBeliefsConfig()
    """Answers with context, for the selection."""
    curated_subset: CuratedSubsetConfig = CuratedSubsetConfig()
    """Selection."""
    teacher_contexts: TeacherContextsConfig = TeacherContextsConfig()
    """Worked examples."""
    teacher_lift: TeacherLiftConfig = TeacherLiftConfig()
    """Trial of the worked examples before training."""
    distilled_adapter: DistilledAdapterConfig = DistilledAdapterConfig()
    """Distillation."""
    rival_adapter: RivalAdapterConfig = RivalAdapterConfig()
    """A rival method, to compare with."""
    ceiling_adapter: CeilingAdapterConfig = CeilingAdapterConfig()
    """Distillation from gold, to compare with."""
    predictions: PredictionsConfig = PredictionsConfig()
    """Responses to the tests."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Evaluation."""
    causal_check: CausalCheckConfig = CausalCheckConfig()
    """The causal check, beside the chain."""
    proposed_questions: ProposedQuestionsConfig = ProposedQuestionsConfig()
    """Questions by the model for its next pool, beside the chain."""
    checks: ChecksConfig = ChecksConfig()
    """Limits of the checks, which judge results and change none."""
    rounds: RoundsConfig = RoundsConfig()
    """Rounds, and what keeps a model from being promoted."""

    def with_seed(self, seed: int) -> Self:
        """Return a copy in which every stage that draws at random uses ``seed``."""
        sections = {name: getattr(self, name) for name in type(self).model_fields}
        return self.model_copy(
            update={
                name: section.model_copy(update={"seed": seed})
                for name, section in sections.items()
                if "seed" in type(section).model_fields
            }
        )
