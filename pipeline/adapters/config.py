"""Settings of this room's stage."""

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.section import Section


class TrainingConfig(Section):
    """LoRA training, whatever its objective (re-implementation's settings)."""

    immaterial: ClassVar[frozenset[str]] = frozenset({"activation_checkpointing", "checkpoint_every", "report_to"})

    objective: str
    """What is trained for, one of training.objectives.OBJECTIVES."""

    steps: int = Field(default=250, ge=1)
    """Optimizer steps."""
    trajectories_per_step: int = Field(default=4, ge=1)
    """Responses per optimizer step, each to another question."""
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
    checkpoint_every: int = Field(default=10, ge=0)
    """Optimizer steps from one checkpoint to the next, of which the last two are kept until the adapter is whole; a run
    that was cut off goes on from there to the same adapter. 0 keeps none."""
    report_to: list[str] = []
    """Libraries that each step's figures are sent to besides, of trackio, tensorboard, wandb and mlflow; what they
    write on this machine is in the store's folder ``tracking``."""


class DistilledAdapterConfig(TrainingConfig):
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
    temperature: float = Field(default=0.6, gt=0)
    """Sampling temperature of the student."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Nucleus mass of the student's samples."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Length limit of a student sample (tokens)."""


class RivalAdapterConfig(TrainingConfig):
    """What distillation is compared with, on the same questions."""

    enabled: bool = True
    """Train the rival; false leaves an empty artifact, and the rival out of the evaluation."""
    objective: Literal["sft"] = "sft"
    """sft: fine-tuning on the model's own majority responses (arXiv 2210.11610)."""
