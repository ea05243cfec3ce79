"""What tells a sound run from a collapsing one, per optimizer step, whatever the objective.

A reward or a teacher that a model can please with less and less shows in the model before it shows in the loss: its
responses become alike, shorter or endless, its next token certain, and it leaves the base model. ``Vitals`` sees every
micro-batch that a TRL trainer computes its loss of, and adds its figures to those that the trainer logs. What TRL
counts already (length, clipped share, reward) is taken from it.

All figures of a step are of the weights before its update. Answers are not read here: that would tie every adapter to
the code that reads them, so that a mended pattern trained it again, and distillation is meant to leave the student's
own votes. A reward that reads answers anyway logs ``agreement`` and ``distinct_answers`` (TRL's ``log_metric``).
"""

from collections.abc import Mapping
from typing import Any, Final

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import TrainerCallback

from training.divergence import CHUNK_TOKENS, apply_head, check_head, last_hidden_states
from training.sampling import without_dropout

LOGGED: Final[Mapping[str, str]] = {
    "step": "step",
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "response_tokens": "completions/mean_length",
    "clipped_share": "completions/clipped_ratio",
    "entropy": "entropy",
    "distinct_responses": "distinct_responses",
    "distinct_answers": "distinct_answers",
    "agreement": "agreement",
    "kl_to_base": "kl_to_base",
    "reward": "reward",
}
"""Key in a trainer's log of each column of TRAINING_LOG; names with a slash, ``entropy`` and ``reward`` are TRL's."""


class Vitals(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Adds ``entropy``, ``distinct_responses`` and ``kl_to_base`` to what a trainer logs of a step."""

    def __init__(self, trainer: Any, kl_every: int) -> None:
        """Watch a TRL trainer of a PEFT model, which logs the mean entropy of each micro-batch's response tokens.

        ``kl_to_base`` is taken at the first and the last step and at each that ``kl_every`` divides. Raises
        TrainingError for a model whose logits cannot be taken in chunks.
        """
        with without_dropout(trainer.model):
            check_head(trainer.model.get_base_model())
        self._trainer, self._kl_every = trainer, kl_every
        self._compute_loss = trainer.compute_loss
        trainer.compute_loss = self._watch  # no callback of transformers sees a micro-batch
        self._start_step()

    def _start_step(self) -> None:
        self._sums = torch.zeros(4, dtype=torch.float64)  # entropy and its tokens, divergence and its tokens
        self._responses: list[tuple[int, ...]] = []
        self._n_micro_batches = 0

    def _watch(self, model: nn.Module, inputs: dict[str, Any], *others: Any, **named: Any) -> Tensor:
        ids, attention, response = responses(inputs)
        step = self._trainer.state.global_step + 1
        due = step in (1, self._trainer.state.max_steps) or step % self._kl_every == 0
        if due and not self._n_micro_batches:  # before the loss, whose activations then stand in memory
            divergence = kl_to_base(self._trainer.model, ids, attention, response)
            self._sums[2:] += torch.tensor([float(divergence.sum()), len(divergence)], dtype=torch.float64)
        loss: Tensor = self._compute_loss(model, inputs, *others, **named)
        counted = inputs.get("loss_mask")  # of distillation, whose entropy is that of the tokens that count
        n_tokens = int((response if counted is None else counted).sum())
        entropy = self._trainer._metrics["train"]["entropy"][-1]
        self._sums[:2] += torch.tensor([entropy * n_tokens, n_tokens], dtype=torch.float64)
        if "completion_ids" in inputs:  # samples, not targets
            self._responses += [tuple(row[kept].tolist()) for row, kept in zip(ids, response, strict=True)]
        self._n_micro_batches += 1
        return loss

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Hand the step's figures, over all processes, to the trainer, which logs them next."""
        accelerator, logged = self._trainer.accelerator, self._trainer._metrics["train"]
        sums = accelerator.reduce(self._sums.to(accelerator.device), "sum")
        entropy, n_tokens, divergence, n_compared = sums.tolist()
        logged["entropy"] = [entropy / n_tokens] if n_tokens else []  # TRL logs no mean of nothing
        if n_compared:
            logged["kl_to_base"] = [divergence / n_compared]
        if every := gather_object(self._responses):
            logged["distinct_responses"] = [len(set(every)) / len(every)]
        self._start_step()


def responses(inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return token ids, attention mask and mask of response tokens ``[B, S]`` of a micro-batch.

    Args:
        inputs: What a TRL trainer takes the loss of: ``prompt_ids``, ``prompt_mask``, ``completion_ids`` and
            ``completion_mask``; or ``input_ids``, ``attention_mask`` and ``labels`` (-100 where nothing is learnt).
    """
    if "completion_ids" not in inputs:
        return inputs["input_ids"], inputs["attention_mask"], inputs["labels"] != -100
    mask = inputs["completion_mask"].bool()
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    return ids, attention, torch.cat([torch.zeros_like(inputs["prompt_mask"], dtype=torch.bool), mask], 1)


@torch.no_grad()
def kl_to_base(model: Any, ids: Tensor, attention: Tensor, response: Tensor) -> Tensor:
    """Return KL(student, base model) at each response token (nats), exact over the vocabulary, at temperature 1.

    Args:
        model: PEFT model; without its adapter it is the base model.
        ids: Token ids ``[B, S]``.
        attention: Attention mask ``[B, S]``.
        response: Which tokens are of responses ``[B, S]``.
    """
    base = model.get_base_model()

    def hidden() -> Tensor:
        return last_hidden_states(base, ids, attention)[:, :-1][response[:, 1:]]

    with without_dropout(model):
        student = hidden()
        with model.disable_adapter():
            untrained = hidden()
    found = []
    for chunk in zip(student.split(CHUNK_TOKENS), untrained.split(CHUNK_TOKENS), strict=True):
        log_p, log_q = (apply_head(base, states).log_softmax(-1, torch.float32) for states in chunk)  # [n, V]
        found.append((log_p.exp() * (log_p - log_q)).sum(-1))
    return torch.cat(found)
