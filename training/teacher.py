"""The moving-average teacher: an exponential average of the student's *effective* weights.

TRL 1.16 averages the LoRA factors A and B one by one, from zero. The product of two averages is not the average of the
products, and a teacher that starts from zero is not the student. Here each adapted layer holds the average E of the
effective update (alpha / rank) B A:

    E <- d E + (1 - d) (alpha / rank) B A,    E at the start = the student's update

so the teacher's weight is W + E, which equals the average of the student's merged weights. An average of low-rank
matrices has no low rank, so E is dense: four bytes per adapted weight. It stays in float32, and beside a W of lower
precision it is applied as a product of its own: bfloat16 would swallow the average's small steps, and the sum W + E
would swallow a small E. That costs such a teacher a second product per layer.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # the customary name
from transformers import TrainerCallback


class EMATeacher(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Moving average of a LoRA student, brought up to date after every optimizer step."""

    def __init__(self, model: PeftModel, update_rate: float) -> None:
        """Start from the student as it is.

        Args:
            model: The student.
            update_rate: Weight of the newest student, one minus the decay.
        """
        self._model = model
        self._update_rate = update_rate
        self._layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}
        self.deltas = {name: _delta(layer) for name, layer in self._layers.items()}
        """Averaged update E of each adapted layer, float32 [d_out, d_in]: the teacher's whole state."""

    def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
        """Move the average towards the student."""
        self.update()

    def update(self) -> None:
        """Take one step of the average."""
        for name, layer in self._layers.items():
            self.deltas[name].lerp_(_delta(layer), self._update_rate)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let the model compute as the teacher within the block."""
        with ExitStack() as stack:
            stack.enter_context(self._model.disable_adapter())
            for name, layer in self._layers.items():
                linear = layer.base_layer
                linear.forward = partial(_teacher_forward, linear, self.deltas[name])
                stack.callback(delattr, linear, "forward")  # uncovers the class's own
            yield


@torch.no_grad()
def _delta(layer: Any) -> Tensor:
    return layer.get_delta_weight(layer.active_adapter[0]).float()


def _teacher_forward(linear: nn.Linear, delta: Tensor, x: Tensor) -> Tensor:
    if linear.weight.dtype == torch.float32:
        return F.linear(x, linear.weight + delta, linear.bias)
    return F.linear(x, linear.weight, linear.bias) + F.linear(x, delta.to(x.dtype))
