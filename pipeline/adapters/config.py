"""Settings of this room's stage."""

from typing import ClassVar, Literal

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
