"""Settings of this room's stage."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal

from pydantic import Field

from pipeline.section import Section


class TrainingConfig(Section):
    """LoRA training, whatever its objective (re-implementation's settings)."""

    immaterial: ClassVar[frozenset[str]] = frozenset({"activation_checkpointing"})

    objective: str
    """What is trained for, one of training.objectives.OBJECTIVES."""

    steps: int = Field(default=250, ge=1)
    """Optimizer steps."""
    trajectories_per_step: int = Field(default=4, ge=1)
    """Responses per optimizer step, each to another question but for grpo's groups."""
    micro_batch: int = Field(default=4, ge=1)
    """Trajectories per forward and backward pass; divides trajectories_per_step."""
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


class OnPolicyConfig(TrainingConfig):
    """Training on the student's own samples."""

    temperature: float = Field(default=0.6, gt=0)
    """Sampling temperature of the student."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Nucleus mass of the student's samples."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Length limit of a student sample (tokens)."""


class DistilledAdapterConfig(OnPolicyConfig):
    """On-policy self-distillation (re-implementation's settings)."""

    immaterial = TrainingConfig.immaterial | {"require_lift"}

    objective: Literal["opsd"] = "opsd"
    """On-policy self-distillation; what it is compared with is trained by ``rival_adapter``."""
    require_lift: Literal["warn", "stop"] = "warn"
    """What happens where ``teacher_lift`` does not say that the worked examples help: a warning, or an error."""
    teacher: Literal["ema", "base", "live"] = "ema"
    """Teacher weights: moving average of the student, the untouched model, or the student itself."""
    ema_decay: float = Field(default=0.995, ge=0, lt=1)
    """Decay of the moving average; TRL's teacher_update_rate is 1 - decay."""
    divergence: Literal["reverse_kl", "forward_kl", "jsd"] = "reverse_kl"
    """KL(student, teacher), KL(teacher, student), or Jensen-Shannon, over the full vocabulary."""


RewardName = Literal["majority", "self_certainty", "self_judge"]
"""Names of training.rewards.REWARDS."""
_SAMPLES: Final = frozenset({"grpo"})


class RivalAdapterConfig(OnPolicyConfig):
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
    }
    """Objectives that read a setting; what does not stand here all do."""

    enabled: bool = True
    """Train the rival; false leaves an empty artifact, and the rival out of the evaluation."""
    objective: Literal["sft", "grpo"] = "sft"
    """sft: fine-tuning on the model's own responses (arXiv 2210.11610); grpo: reinforcement by a reward without labels
    (arXiv 2402.03300)."""
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

    def material(self) -> dict[str, Any]:
        """Return the settings that determine the adapter of this objective."""
        everyone = frozenset({self.objective})
        return {
            name: value
            for name, value in super().material().items()
            if self.objective in self.read_by.get(name, everyone)
        }
