"""Settings of this room's stage."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal

from pydantic import Field

from pipeline.section import Section


class TrainingConfig(Section):
    """LoRA training, whatever its objective (re-implementation's settings)."""

    immaterial: ClassVar[frozenset[str]] = frozenset({"activation_checkpointing", "checkpoint_every", "report_to"})
    variants: ClassVar[Mapping[str, str]] = {}
    """Setting that tells an objective's variants apart, by the objective; where there are any."""

    objective: str
    """What is trained for, one of training.objectives.OBJECTIVES."""

    steps: int = Field(default=250, ge=1)
    """Optimizer steps."""
    trajectories_per_step: int = Field(default=4, ge=1)
    """Responses per optimizer step, each to another question but for grpo's groups."""
    micro_batch: int = Field(default=4, ge=1)
    """Trajectories per forward and backward pass of a process; times processes it divides trajectories_per_step."""
    processes: int = Field(default=1, ge=1)
    """Processes that share a step's trajectories, a GPU each, on one machine. Results are alike up to rounding, as with
    another micro_batch; with lora_dropout the masks differ."""
    activation_checkpointing: bool = False
    """Keep each layer's input only and compute the layer again in the backward pass: far less memory, about a third
    more computation, results alike up to rounding."""
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
    checkpoint_every: int = Field(default=10, ge=0)
    """Optimizer steps from one checkpoint to the next, of which the last two are kept until the adapter is whole; a run
    that was cut off goes on from there to the same adapter. 0 keeps none."""
    report_to: list[str] = []
    """Libraries that each step's figures are sent to besides, of trackio, tensorboard, wandb and mlflow; what they
    write on this machine is in the store's folder ``tracking``."""
    kl_every: int = Field(default=5, ge=1)
    """Steps from one comparison with the base model to the next: two forward passes of a micro-batch each."""
    guard: Literal["stop", "warn", "off"] = "stop"
    """What becomes of a run that collapses (training/guard.py): stop ends it and keeps the adapter of its last sound
    steps, warn says so once and goes on."""
    guard_responses: int = Field(default=80, ge=1)
    """Responses over which a vital is averaged, in whole steps, before it is judged against the first so many."""
    guard_length_factor: float = Field(default=4.0, gt=1)
    """How many times longer or shorter the student's samples may become."""
    guard_clipped_rise: float = Field(default=0.5, gt=0, le=1)
    """How much the share of responses that the length limit cuts may rise."""
    guard_entropy_factor: float = Field(default=10.0, gt=1)
    """How many times higher or lower the entropy of the student's next token may become over its own samples."""
    guard_distinct_floor: float = Field(default=0.25, ge=0, lt=1)
    """Share of the variety of responses, and of answers where the objective reads them, that must be left."""
    guard_agreement_floor: float = Field(default=0.5, ge=0, lt=1)
    """Share of the agreement with leading answers that must be left, where the objective reads answers."""
    guard_max_kl: float = Field(default=1.0, gt=0)
    """Divergence of the student from the base model (nats per response token)."""

    @property
    def label(self) -> str:
        """What tables call the method: the objective, and its variant in brackets unless that is the default."""
        setting = self.variants.get(self.objective)
        if setting is None or getattr(self, setting) == type(self).model_fields[setting].default:
            return self.objective
        return f"{self.objective} ({getattr(self, setting)})"


class OnPolicyConfig(TrainingConfig):
    """Training on the student's own samples."""

    temperature: float = Field(default=0.6, gt=0)
    """Sampling temperature of the student."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Nucleus mass of the student's samples."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Length limit of a student sample (tokens)."""


class DistillationConfig(OnPolicyConfig):
    """On-policy distillation, whatever the teacher is told (re-implementation's settings)."""

    teacher: Literal["ema", "base", "live"] = "ema"
    """Teacher weights: moving average of the student, the untouched model, or the student itself."""
    ema_decay: float = Field(default=0.995, ge=0, lt=1)
    """Decay of the moving average; TRL's teacher_update_rate is 1 - decay."""
    divergence: Literal["reverse_kl", "forward_kl", "jsd"] = "reverse_kl"
    """KL(student, teacher), KL(teacher, student), or Jensen-Shannon."""
    top_k: int | None = Field(default=None, ge=1)
    """Tokens that the divergence tells apart, the student's likeliest; the others count as one. None: all."""
    loss_on: Literal["response", "answer"] = "response"
    """Tokens of a response that count in the loss: all, or those that state its answer (none where it states none)."""
    loss_tokens: int | None = Field(default=None, ge=1)
    """Of these the first so many only; none: all."""
    truncated: Literal["keep", "drop"] = "keep"
    """What becomes of responses that the length limit cut: they count as others do, or not at all."""


class DistilledAdapterConfig(DistillationConfig):
    """On-policy self-distillation."""

    immaterial = TrainingConfig.immaterial | {"require_lift"}

    objective: Literal["opsd"] = "opsd"
    """On-policy self-distillation; what it is compared with is trained by ``rival_adapter``."""
    require_lift: Literal["warn", "stop"] = "warn"
    """What happens where ``teacher_lift`` does not say that the worked examples help: a warning, or an error."""


class CeilingAdapterConfig(DistillationConfig):
    """Distillation from gold answers: what no method without them may read, as the upper end of the comparison."""

    enabled: bool = False
    """Train the ceiling; false leaves an empty artifact, and the ceiling out of the evaluation."""
    objective: Literal["gold_context"] = "gold_context"
    """The teacher is told the gold answer of each training question."""


RewardName = Literal["majority", "self_certainty", "self_judge"]
"""Names of training.rewards.REWARDS."""


_DISTILS: Final = frozenset({"opsd_majority", "u_opsd"})
_SAMPLES: Final = frozenset({"grpo", "opsd_majority"})


class RivalAdapterConfig(DistillationConfig):
    """What distillation is compared with, on the same questions."""

    read_by: ClassVar[Mapping[str, frozenset[str]]] = {
        "temperature": _SAMPLES,
        "top_p": _SAMPLES,
        "max_new_tokens": _SAMPLES,
        "targets": frozenset({"sft"}),
        "min_vote_share": frozenset({"sft"}),
        "reward": frozenset({"grpo"}),
        "num_generations": frozenset({"grpo"}),
        "beta": frozenset({"grpo"}),
        "min_consistency": frozenset({"u_opsd"}),
        **dict.fromkeys(DistillationConfig.__annotations__, _DISTILS),
    }
    """Objectives that read a setting; what does not stand here all do."""
    variants = {"sft": "targets", "grpo": "reward"}

    enabled: bool = True
    """Train the rival; false leaves an empty artifact, and the rival out of the evaluation."""
    objective: Literal["sft", "grpo", "opsd_majority", "u_opsd"] = "sft"
    """sft: fine-tuning on the model's own responses (arXiv 2210.11610); grpo: reinforcement by a reward without labels
    (arXiv 2402.03300); opsd_majority: distillation whose teacher is told the question's own majority response (arXiv
    2601.18734 without labels); u_opsd: likewise the shortest one, into the longest response that disagrees (arXiv
    2608.06296)."""
    targets: Literal["majority", "rationales", "verified"] = "majority"
    """Responses that sft learns: the majority's most likely one; any that agrees with the majority and reasons before
    it states its answer (STaR, arXiv 2203.14465, without labels); any that passes the model's own verification
    (arXiv 2605.26132). Of several one is drawn each time that the question comes up."""
    min_vote_share: float = Field(default=0.0, ge=0, le=1)
    """Questions whose majority has a smaller share of the rollouts give sft no majority and no rationales."""
    reward: RewardName = "majority"
    """What grpo rewards, one of training.rewards.REWARDS; a response without a readable answer gets 0."""
    num_generations: int = Field(default=4, ge=2)
    """Responses of a group, to one question, that grpo compares; divides trajectories_per_step."""
    beta: float = Field(default=0.0, ge=0)
    """Weight of the KL to the base model in grpo's loss; TRL's default is none."""
    min_consistency: float = Field(default=0.5, ge=0, le=1)
    """Vote share, of all rollouts, that u_opsd asks of a majority that is to teach. Half is the paper's; its ablation
    finds lower ones better, down to none."""

    def material(self) -> dict[str, Any]:
        """Return the settings that determine the adapter of this objective."""
        everyone = frozenset({self.objective})
        return {
            name: value
            for name, value in super().material().items()
            if self.objective in self.read_by.get(name, everyone)
        }
