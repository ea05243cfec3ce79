"""Divergence of student and teacher over the full vocabulary without ever holding their logits.

For Qwen3-4B and four responses of 256 tokens one copy of the logits takes 0.6 GB in float32, and a divergence with its
gradient takes about eight of them. Here the last hidden states meet the model's head a few tokens at a time, and each
chunk's gradient is taken at once, so neither do chunks add up nor is anything computed twice.

TRL 1.16 has ``ChunkedDivergenceFunction`` for its ``DistillationTrainer``, not for ``SDFTTrainer``. It projects all
tokens a second time in the backward pass, and has to be told of bias, scale and cap of every family's head. Here
``apply_head`` lets the model compute its logits itself.
"""

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions
from trl.experimental.sdft.loss_utils import compute_divergence  # training is where TRL belongs

from pipeline.errors import TrainingError

CHUNK_TOKENS: Final = 128
"""Tokens that have logits at the same time: 0.6 GB at a vocabulary of 152,000, twice that for Jensen-Shannon."""
_LEAST_LOG_PROB: Final = -1e4
"""Far below what float32 can tell from no probability; no gradient passes beyond."""


def last_hidden_states(model: PreTrainedModel, ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Return what the model's head makes logits of, ``[B, S, D]``, for token ids ``[B, S]``."""
    hidden: Tensor = model.get_decoder()(input_ids=ids, attention_mask=attention_mask, use_cache=False)[0]
    return hidden


def apply_head(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Return the logits ``[N, V]`` of last hidden states ``[N, D]``, by the model's own way from decoder to logits."""
    decoder, given = model.get_decoder(), BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=hidden[None])
    given.router_logits = None  # of a family whose experts are optional
    decoder.forward = lambda *_args, **_kwargs: given
    try:
        logits: Tensor = model(inputs_embeds=hidden[None], use_cache=False).logits[0]
    finally:
        del decoder.forward  # uncovers the class's own
    return logits


def check_head(model: PreTrainedModel) -> None:
    """Raise TrainingError for a family whose logits are not made of its decoder's last hidden states alone."""
    ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0]
        own = apply_head(model, last_hidden_states(model, ids, torch.ones_like(ids))[0])
    if not torch.allclose(own, logits, rtol=0, atol=1e-2 * float(logits.abs().max())):
        raise TrainingError(
            f"{type(model).__name__} does not make its logits of its decoder's last hidden states alone, "
            "as distillation does: use a dense decoder of another family"
        )


def sum_divergence(
    student: Tensor,
    teacher: Tensor,
    head: Callable[[Tensor], Tensor],
    alpha: float,
    top_k: int | None = None,
    entropies: list[Tensor] | None = None,
) -> Tensor:
    """Return the divergence, summed over tokens (nats).

    Tokens that both give no probability at all add nothing, as in the limit; TRL's formula gives nan there.

    Args:
        student: Last hidden states ``[N, D]``; the only ones that get a gradient.
        teacher: Last hidden states ``[N, D]`` at the same tokens.
        head: Takes hidden states ``[n, D]`` to logits ``[n, V]``, each by itself; none of its weights is trained.
        alpha: TRL's ``distillation_alpha``: 1 is KL(student, teacher), 0 KL(teacher, student), 0.5 Jensen-Shannon.
        top_k: Where given, the divergence is over the student's k likeliest tokens and one bucket for all others, the
            support of SDPO (arXiv 2601.20802) and of TRL's ``compute_topk_self_distillation_loss`` with
            ``distillation_add_tail``: never more than over the whole vocabulary.
        entropies: Where given, receives the entropies of the student's next token, a tensor for each chunk (nats).
    """
    return _SumDivergence.apply(student, teacher, head, alpha, top_k, entropies)


class _SumDivergence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        student: Tensor,
        teacher: Tensor,
        head: Callable[[Tensor], Tensor],
        alpha: float,
        top_k: int | None,
        entropies: list[Tensor] | None,
    ) -> Tensor:
        chunks = [
            _chunk_divergence(*hidden, head, alpha, top_k, entropies)
            for hidden in zip(student.split(CHUNK_TOKENS), teacher.split(CHUNK_TOKENS), strict=True)
        ]
        ctx.save_for_backward(torch.cat([gradient for _, gradient in chunks]))
        return torch.stack([divergence for divergence, _ in chunks]).sum()

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return (scale * gradient).to(gradient.dtype), None, None, None, None, None


def _chunk_divergence(
    student: Tensor,
    teacher: Tensor,
    head: Callable[[Tensor], Tensor],
    alpha: float,
    top_k: int | None,
    entropies: list[Tensor] | None,
) -> tuple[Tensor, Tensor]:
    target = _log_probs(head(teacher))  # [n, V]
    with torch.enable_grad():
        student = student.detach().requires_grad_()
        log_probs = _log_probs(head(student))
        if entropies is not None:
            entropies.append(torch.special.entr(log_probs.detach().exp()).sum(-1))
        if top_k and top_k < log_probs.shape[-1]:
            likeliest = log_probs.detach().topk(top_k, -1).indices
            log_probs, target = (_with_tail(side, likeliest) for side in (log_probs, target))
        divergence = compute_divergence(log_probs, target, alpha).sum()
    return divergence.detach(), *torch.autograd.grad(divergence, student)


def _log_probs(logits: Tensor) -> Tensor:
    log_probs = logits.log_softmax(-1, torch.float32)
    # Of masked tokens, whose logits are -inf, 0 * (-inf - -inf) would be nan. Without any no copy is made.
    return log_probs.clamp(min=_LEAST_LOG_PROB) if log_probs.amin() < _LEAST_LOG_PROB else log_probs


def _with_tail(log_probs: Tensor, kept: Tensor) -> Tensor:
    """Return the log-probabilities of the tokens ``kept`` ``[n, k]``, and that of all others together behind them.

    TRL's ``add_tail_bucket`` takes the others as one minus the kept ones, which floors them at 1e-7.
    """
    tail = log_probs.scatter(-1, kept, -torch.inf).logsumexp(-1, keepdim=True)
    return torch.cat([log_probs.gather(-1, kept), tail], -1)
