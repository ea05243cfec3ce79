"""The moving-average teacher: an exponential average of the student's *effective* weights, kept in low rank.

TRL 1.16 averages the LoRA factors A and B one by one, from zero. The product of two averages is not the average of the
products, and a teacher that starts from zero is not the student. Here each adapted layer holds the average E of the
effective update (alpha / rank) B A:

    E <- d E + (1 - d) (alpha / rank) B A,    E at the start = the student's update

so the teacher's weight is W + E, which is the average of the student's merged weights. An average of low-rank matrices
has no low rank, and a dense one takes four bytes per adapted weight: 14.5 GB for Qwen3-4B, where the adapter takes
0.13. So E is held as the product of two factors of twice the adapter's rank, and each step is followed by the nearest
product of that rank (Eckart and Young): its singular values beyond are lost, which is what ``error_bound`` adds up.

The factors stay in float32 and are applied as products of their own: bfloat16 would swallow the average's small steps,
and the sum W + E would swallow a small E.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # the customary name
from transformers import TrainerCallback


class LowRank(NamedTuple):
    """A matrix ``left @ right``, float32."""

    left: Tensor
    """``[d_out, rank]``"""
    right: Tensor
    """``[rank, d_in]``"""


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
        """Averaged update E of each adapted layer: the teacher's whole state."""
        self._errors = {name: delta.left.new_zeros(()) for name, delta in self.deltas.items()}

    def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
        """Move the average towards the student."""
        self.update()

    @torch.no_grad()
    def update(self) -> None:
        """Take one step of the average."""
        decay = 1 - self._update_rate
        for name, layer in self._layers.items():
            old, new = self.deltas[name], _delta(layer)
            left = torch.cat([decay * old.left, self._update_rate * new.left], 1)
            rank = 2 * new.left.shape[1]
            self.deltas[name], lost = truncate(LowRank(left, torch.cat([old.right, new.right])), rank)
            self._errors[name] = decay * self._errors[name] + lost

    def error_bound(self) -> float:
        """Return a bound of the distance from the exact average: Frobenius norm over all layers, by that of E.

        The error of a step is at most d times the error before and what this step lost; float32's own rounding, about
        3e-5 after 250 steps, is not counted.
        """
        norms = [(delta.left.T @ delta.left * (delta.right @ delta.right.T)).sum() for delta in self.deltas.values()]
        error = torch.stack(list(self._errors.values())).norm()
        return float(error / torch.stack(norms).sum().sqrt()) if error else 0.0

    def tensors(self) -> dict[str, Tensor]:
        """Return its state: the averages' factors and the bounds of their errors."""
        errors = {f"{name}.error": error for name, error in self._errors.items()}
        return errors | {
            f"{name}.{side}": factor for name, delta in self.deltas.items() for side, factor in delta._asdict().items()
        }

    def values(self) -> dict[str, Any]:
        """Return nothing: all of its state are tensors."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor], _values: Mapping[str, Any]) -> None:
        """Take a state back that ``tensors`` has returned."""
        for name, delta in self.deltas.items():
            left, right, error = (tensors[f"{name}.{part}"].to(delta.left) for part in ("left", "right", "error"))
            self.deltas[name], self._errors[name] = LowRank(left, right), error

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


def truncate(matrix: LowRank, rank: int) -> tuple[LowRank, Tensor]:
    """Return the nearest matrix of ``rank`` in the Frobenius norm, and the distance to it."""
    q_left, r_left = torch.linalg.qr(matrix.left)
    q_right, r_right = torch.linalg.qr(matrix.right.T)
    u, s, vh = torch.linalg.svd(r_left @ r_right.T, full_matrices=False)
    return LowRank(q_left @ (u[:, :rank] * s[:rank]), vh[:rank] @ q_right.T), s[rank:].norm()


@torch.no_grad()
def _delta(layer: Any) -> LowRank:
    name = layer.active_adapter[0]
    b, a = layer.lora_B[name].weight.float(), layer.lora_A[name].weight.float()
    return LowRank(layer.scaling[name] * b, a.clone())


def _teacher_forward(linear: nn.Linear, delta: LowRank, x: Tensor) -> Tensor:
    left, right = (factor.to(x.dtype) for factor in delta)
    return F.linear(x, linear.weight, linear.bias) + F.linear(F.linear(x, right), left)
