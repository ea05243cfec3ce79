"""The one typed configuration tree: a flat, frozen section per stage, named like its asset.

Defaults are the published settings where the paper gives them (arXiv 2607.02460 and its re-implementation), but for the
selection rule and the context builder, which ``benchmarks.comparison`` chose; a preset (``presets/*.yaml``) states only
what differs, and ``pipeline.presets`` loads it.
"""

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field

from pipeline.choices import BuilderName, RuleName
from pipeline.pool_config import PoolConfig as PoolConfig  # the tree is imported from here, all of it
from pipeline.pool_config import RawPoolConfig as RawPoolConfig
from pipeline.section import Section

PROJECT_ROOT = Path(__file__).resolve().parent.parent


class ModelConfig(Section):
    """The language model: student, teacher and source of neuron scores."""

    path: str = "data/reference/model"
    """Local folder, relative to the working folder or the project, or a Hugging Face hub id."""
    revision: str | None = None
    """Hub revision (branch, tag or commit); none takes the default branch."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Weights' type; auto takes the checkpoint's."""
    device: str = "auto"
    """Torch device such as cpu, cuda or cuda:1; auto takes cuda where there is one."""


class RolloutsConfig(Section):
    """Sampled responses per question (method: G = 5, temperature 0.6, top-p 0.95, 256 new tokens)."""

    n_samples: int = Field(default=5, ge=1)
    """Responses per question, G."""
    temperature: float = Field(default=0.6, gt=0)
    """Sampling temperature."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Nucleus mass."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Length limit of a response (tokens)."""
    permute_options: bool = False
    """Show the options in an order drawn per sample, so that letters carry no identity; off keeps the pool's."""
    batch_tokens: int = Field(default=16_384, ge=1)
    """Padded prompt plus response tokens of a batch; bounds memory, never results."""
    seed: int = 0
    """Seed of the draws, combined with question id and sample number."""


class PseudoLabelsConfig(Section):
    """Majority vote."""

    min_votes: int = Field(default=1, ge=1)
    """Fewer extracted answers than this leave the question without a pseudo-label."""


class NeuronScoresConfig(Section):
    """Contributions of MLP neurons to the tokens of a response (paper, appendix A)."""

    immaterial: ClassVar[frozenset[str]] = frozenset({"chunk_tokens", "batch_tokens", "max_unscored_share"})

    unit: Literal["act_fn", "down_proj_input"] = "act_fn"
    """Activation: output of act_fn (the paper), or the input of down_proj (the neuron's true activation)."""
    position: Literal["predicting", "consuming"] = "predicting"
    """Where token y_t's activation is read: at t-1, which predicted it, or at t, where it is the input."""
    cut: Literal["entries", "neurons"] = "entries"
    """Global top K over (layer, neuron, position), merged to neurons after it, or over neurons merged before."""
    top_k: int = Field(default=5_000, ge=1)
    """Global K per rollout."""
    top_k_per_layer: int = Field(default=2_000, ge=1)
    """Neurons kept per layer; used by the cut over neurons."""
    chunk_tokens: int = Field(default=128, ge=1)
    """Response positions of each rollout scored at once; bounds memory, never results."""
    batch_tokens: int = Field(default=16_384, ge=1)
    """Padded tokens of a forward batch, halved when they exceed the memory; bounds memory, never results."""
    shard_rollouts: int = Field(default=1_024, ge=1)
    """Rollouts per stored shard: bounds memory, and what a killed run has to compute again; never changes a row."""
    score_dtype: Literal["float16", "float32"] = "float32"
    """Precision to which scores are stored, float16 in half the space; they are always accumulated in float32."""
    max_unscored_share: float = Field(default=0.5, ge=0, le=1)
    """The stage fails when a larger share of the rollouts cannot be scored."""


class CuratedSubsetConfig(Section):
    """Which pool questions become training questions."""

    rule: RuleName = "confident_shift"
    """Selection rule (pipeline.selection); the paper's is neuron_support."""
    fraction: float = Field(default=0.2, gt=0, le=1)
    """Share of the pool to keep, alpha in the paper."""
    count: int | None = Field(default=None, ge=1)
    """Number of questions to keep; overrides the fraction."""
    per_domain: bool = False
    """Apply the budget within each domain instead of over the whole pool."""
    seed: int = 0
    """Seed of the random rule and of ties."""


class TeacherContextsConfig(Section):
    """Worked examples that the teacher sees (paper: the k = 3 nearest by neuron overlap)."""

    builder: BuilderName = "stem_overlap"
    """Context builder (pipeline.teacher); the paper's is neuron_overlap."""
    n_demonstrations: int = Field(default=3, ge=1)
    """Worked examples per question, k."""
    balance_answers: bool = False
    """Prefer, among the 4 k most similar, examples whose pseudo-answers differ; against echo of the student's vote."""
    max_stem_share: float = Field(default=0.03, gt=0, le=1)
    """Neurons in the stems of a larger share of the pool do not count in stem_overlap; 1 counts all."""
    max_teacher_tokens: int = Field(default=2_048, ge=1)
    """Budget of the teacher's whole prompt (tokens); demonstrations that do not fit are dropped whole."""
    exact_up_to: int = Field(default=50_000, ge=0)
    """Candidates compared one by one; more are searched by signatures, nearly as well (overlap of neuron sets)."""
    seed: int = 0
    """Seed of the random builder."""


class ContextBeliefsConfig(TeacherContextsConfig):
    """Answers with the teacher's context, sampled as the rollouts were, for the rules that read them.

    What a preset leaves open here is as in its section ``teacher_contexts``.
    """

    n_samples: int = Field(default=4, ge=0)
    """Responses per question with its context; 0: none are drawn, for rules that do not read them."""


class TrainingConfig(Section):
    """LoRA training, whatever its objective (re-implementation's settings)."""

    steps: int = Field(default=250, ge=1)
    """Optimizer steps."""
    trajectories_per_step: int = Field(default=4, ge=1)
    """Responses per optimizer step, each to another question."""
    micro_batch: int = Field(default=4, ge=1)
    """Trajectories per forward and backward pass; divides trajectories_per_step."""
    learning_rate: float = Field(default=2.5e-6, gt=0)
    """Peak learning rate of AdamW, cosine schedule."""
    warmup_share: float = Field(default=0.03, ge=0, lt=1)
    """Share of the steps with rising learning rate."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW weight decay."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradient clipping norm."""
    lora_rank: int = Field(default=16, ge=1)
    """Rank of the adapter."""
    lora_alpha: int = Field(default=32, ge=1)
    """Scale of the adapter: alpha / rank multiplies the update."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""
    lora_targets: list[str] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    """Names of the adapted linear layers."""
    seed: int = 0
    """Seed of adapter weights, data order and sampling."""


class DistilledAdapterConfig(TrainingConfig):
    """On-policy self-distillation (re-implementation's settings)."""

    teacher: Literal["ema", "base", "live"] = "ema"
    """Teacher weights: moving average of the student, the untouched model, or the student itself."""
    ema_decay: float = Field(default=0.995, ge=0, lt=1)
    """Decay of the moving average; TRL's teacher_update_rate is 1 - decay."""
    divergence: Literal["reverse_kl", "forward_kl", "jsd"] = "reverse_kl"
    """KL(student, teacher), KL(teacher, student), or Jensen-Shannon, over the full vocabulary."""
    temperature: float = Field(default=0.6, gt=0)
    """Sampling temperature of the student."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Nucleus mass of the student's samples."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Length limit of a student sample (tokens)."""


class SftAdapterConfig(TrainingConfig):
    """What distillation is compared with: fine-tuning on the model's own majority responses (arXiv 2210.11610)."""

    enabled: bool = True
    """Train the rival; false leaves an empty artifact, and the rival out of the evaluation."""


class CausalCheckConfig(Section):
    """Silencing the neurons that carry a response, against as many random ones of the same layers."""

    n_questions: int = Field(default=64, ge=1)
    """Questions drawn, with one response each; fewer where the pool has fewer."""
    top_n: int = Field(default=50, ge=1)
    """Neurons of a response that are silenced, largest contributions first."""
    n_controls: int = Field(default=3, ge=1)
    """Random draws of as many other neurons per layer, over which a response's drop is averaged."""
    batch_tokens: int = Field(default=2_048, ge=1)
    """Padded tokens of a forward batch, whose logits are formed; bounds memory, never results."""
    n_resamples: int = Field(default=2_000, ge=100)
    """Bootstrap resamples of questions."""
    confidence_level: float = Field(default=0.95, gt=0, lt=1)
    """Mass of the intervals."""
    seed: int = 0
    """Seed of the questions drawn, the random neurons and the bootstrap."""


class EvaluationConfig(Section):
    """Untouched, fine-tuned and distilled model on held-out questions; the only stage that reads gold labels."""

    in_domain_path: str = "data/reference/in_domain_test.jsonl"
    """Held-out questions of the pool's domain, named as in pool.decontaminate_against and in the pool's columns; a test
    split off the pool takes their place."""
    out_of_domain_path: str | None = "data/reference/out_of_domain_test.jsonl"
    """Questions of other domains, likewise; none skips them."""
    n_samples: int = Field(default=8, ge=1)
    """Samples per question: the k of Avg@k and Maj@k."""
    n_resamples: int = Field(default=2_000, ge=100)
    """Bootstrap resamples of questions."""
    confidence_level: float = Field(default=0.95, gt=0, lt=1)
    """Mass of the intervals."""
    limit: int | None = Field(default=None, ge=1)
    """Use at most so many questions of each test; none uses all."""
    seed: int = 0
    """Seed of sampling and bootstrap."""


class Config(Section):
    """Everything that determines a run."""

    model: ModelConfig = ModelConfig()
    """The language model."""
    raw_pool: RawPoolConfig = RawPoolConfig()
    """Ingestion."""
    pool: PoolConfig = PoolConfig()
    """Near-duplicates, contamination, tests split off."""
    rollouts: RolloutsConfig = RolloutsConfig()
    """Sampling."""
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
    distilled_adapter: DistilledAdapterConfig = DistilledAdapterConfig()
    """Distillation."""
    sft_adapter: SftAdapterConfig = SftAdapterConfig()
    """Fine-tuning on votes, to compare with."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Evaluation."""
    causal_check: CausalCheckConfig = CausalCheckConfig()
    """The causal check, beside the chain."""

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
