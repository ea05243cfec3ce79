"""Peak memory of distillation, and hours of the whole chain, for the published shapes of Qwen3 on one GPU.

Memory is counted, not estimated: one step's teacher pass, student pass, divergence and gradients are the product's own
code, run on tensors of the right shapes and types without contents, and what stands at the same time is added up. Four
trajectories a step, the default settings, bfloat16 weights under autocast as on a GPU. ``before`` is what this took
with all logits at once and a dense moving average. Added to it: weights, AdamW's state, the teacher. Not in it: what
the CUDA context, its workspaces and fragmentation take, for which a tenth and 1 GB stand in ``smallest_card_gb``.

Hours are computed, not measured: operations by a utilisation, tokens of sampling by a latency, both assumed. The count
is checked against what the C library's allocator gives out at most when a process does the same with contents.
``python -m benchmarks.memory``; on a GPU ``--device cuda`` measures the same steps there, counts beside them.
"""

import argparse
import itertools as it
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from peft import PeftModel, get_peft_model
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import Qwen3Config, Qwen3ForCausalLM

import training.divergence
from benchmarks.allocation import AllocatedBytes, LivingBytes
from benchmarks.machine import LIBRARIES, RESULTS, describe_machine, store_report
from benchmarks.scoring import seconds
from pipeline.adapters.config import DistilledAdapterConfig
from pipeline.predictions.config import PredictionsConfig
from pipeline.rollouts.config import RolloutsConfig
from training.divergence import apply_head, last_hidden_states, sum_divergence
from training.objectives.objective import lora_config
from training.teacher import EMATeacher

SHAPES = {
    "0.6b": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
    "1.7b": {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16},
    "4b": {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32},
    "8b": {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32},
}
"""Of the published checkpoints' config.json; 8b alone has an output layer of its own."""
KV_HEADS, HEAD_DIM = 8, 128
SETTINGS = DistilledAdapterConfig()
CARDS_GB = (8, 12, 16, 24, 32, 40, 48, 80, 141)
GB = 1e9
OPERATIONS_PER_SECOND = 0.4 * 989e12  # assumed: 40 % of an H100's dense bfloat16 peak (data sheet)
SECONDS_PER_LAYER = 1e-3  # assumed: one token step of transformers' eager generate, which launches bound


def build(shape: str, n_layers: int | None, dtype: torch.dtype) -> PeftModel:
    """Return a student of a published shape on the meta device: shapes and types, no contents."""
    sizes = SHAPES[shape] | ({"num_hidden_layers": n_layers} if n_layers else {})
    config = Qwen3Config(
        vocab_size=151_936,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD_DIM,
        tie_word_embeddings=shape != "8b",
        pad_token_id=None,
        **sizes,
    )
    with torch.device("meta"):
        return get_peft_model(Qwen3ForCausalLM._from_config(config, dtype=dtype), lora_config(SETTINGS))


def place(model: PeftModel, device: str) -> None:
    """Give a model of the meta device tensors of its shapes; under FakeTensorMode they take no memory."""
    made: dict[int, Tensor] = {}
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None and id(tensor) not in made:  # a tied one is made once
                    filled = torch.full(tensor.shape, 1e-3, dtype=tensor.dtype, device=device)
                    is_weight = isinstance(tensor, torch.nn.Parameter)
                    made[id(tensor)] = torch.nn.Parameter(filled, tensor.requires_grad) if is_weight else filled
                if tensor is not None:
                    tensors[name] = made[id(tensor)]


def step(model: PeftModel, teacher: EMATeacher, n_prompt: int, n_teacher_prompt: int, n_new: int) -> None:
    """Do what the trainer does with one micro-batch, sampling apart."""
    base, device = model.get_base_model(), next(model.parameters()).device
    hidden = []
    for length, weights in ((n_teacher_prompt, teacher.active()), (n_prompt, None)):
        ids = torch.zeros(SETTINGS.micro_batch, length + n_new, dtype=torch.long, device=device)
        if weights:
            model.eval()
            with torch.no_grad(), weights:
                states = last_hidden_states(base, ids, torch.ones_like(ids))
        else:
            model.train()
            states = last_hidden_states(base, ids, torch.ones_like(ids))
        hidden.append(states[:, -n_new - 1 : -1].flatten(0, 1))
    sum_divergence(hidden[1], hidden[0], lambda x: apply_head(base, x), 1.0).backward()


def count_step(
    shape: str, n_layers: int | None, lengths: tuple[int, int, int], checkpointing: bool, dtype: torch.dtype
) -> int:
    """Return the most bytes that a step has standing at once beyond weights, teacher and optimizer."""
    model = build(shape, n_layers, dtype)
    if checkpointing:
        model.activation_checkpointing_enable()
    with FakeTensorMode(allow_non_fake_inputs=True):
        place(model, "cpu")
        teacher = EMATeacher(model, 0.005)
        there = [*model.parameters(), *model.buffers(), *(x for delta in teacher.deltas.values() for x in delta)]
        with (
            torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16),
            # Whether any logit is masked, which costs a copy, cannot be asked of tensors without contents.
            patch("training.divergence._log_probs", lambda logits: logits.log_softmax(-1, torch.float32)),
            LivingBytes(there) as living,
        ):
            step(model, teacher, *lengths)
        return living.peak


def measure_step(options: argparse.Namespace, lengths: tuple[int, int, int]) -> dict[str, float]:
    """Return the same of a step with contents: on a GPU from PyTorch's allocator, else from the C library's.

    On a GPU also the most that is allocated in all, and the seconds of the step, its first time apart.
    """
    on_gpu = options.device == "cuda"
    model = build(options.shape, options.layers, torch.bfloat16 if on_gpu else torch.float32)
    if options.checkpointing:
        model.activation_checkpointing_enable()
    place(model, options.device)
    teacher = EMATeacher(model, 0.005)
    step(model, teacher, 8, 8, 8)  # what is loaded or set up on the first call is no activation
    model.zero_grad()
    with torch.autocast(options.device, torch.bfloat16, enabled=on_gpu):
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            step(model, teacher, *lengths)
            peak = torch.cuda.max_memory_allocated()
            seconds_spent = seconds(partial(step, model, teacher, *lengths), "cuda")
            return {"step_bytes": peak - before, "total_bytes": peak, "seconds": seconds_spent}
        with AllocatedBytes() as allocated:
            step(model, teacher, *lengths)
        return {"step_bytes": allocated.peak}


def describe_shape(shape: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the memory of a shape, part by part (GB), and its hours."""
    model = build(shape, None, torch.bfloat16)
    adapted = [module for module in model.modules() if hasattr(module, "lora_A")]
    adapter = 4 * sum(p.numel() for p in model.parameters() if p.requires_grad)
    weights = {id(p): p.nbytes for p in model.parameters() if not p.requires_grad}
    fixed = sum(weights.values()) + 4 * adapter  # weights, gradients and two moments of the adapter
    dense = 4 * sum(layer.base_layer.weight.numel() for layer in adapted)
    per_token = 2 * 2 * KV_HEADS * HEAD_DIM * SHAPES[shape]["num_hidden_layers"]
    n_new, n_prompt = SETTINGS.max_new_tokens, options.prompt_tokens
    rows = []
    for n_teacher in options.teacher_tokens:
        lengths = (n_prompt, n_teacher - n_new, n_new)
        peaks = {on: count_step(shape, None, lengths, on, torch.bfloat16) for on in (False, True)}
        chunk, training.divergence.CHUNK_TOKENS = training.divergence.CHUNK_TOKENS, sys.maxsize
        unchunked = count_step(shape, None, lengths, False, torch.bfloat16)
        training.divergence.CHUNK_TOKENS = chunk
        totals = {
            "before": fixed + dense + unchunked,
            "now": fixed + 2 * adapter + peaks[False],
            "now, checkpointing": fixed + 2 * adapter + peaks[True],
        }
        rows.append(
            {
                "teacher_tokens": n_teacher,
                "step_gb": {
                    "all logits at once": unchunked / GB,
                    "in chunks": peaks[False] / GB,
                    "in chunks, checkpointing": peaks[True] / GB,
                },
                "total_gb": {name: total / GB for name, total in totals.items()},
                "smallest_card_gb": {name: _card(total) for name, total in totals.items()},
                "hours": hours(shape, sum(weights.values()) // 2, n_teacher, options),
            }
        )
    return {
        "weights_gb": sum(weights.values()) / GB,
        "adapter_gb": adapter / GB,
        "adapter_gradients_and_adamw_gb": 3 * adapter / GB,
        "teacher_gb": {"dense, before": dense / GB, "low rank": 2 * adapter / GB},
        "kv_cache_of_training_samples_gb": SETTINGS.trajectories_per_step * (n_prompt + n_new) * per_token / GB,
        "kv_cache_of_rollouts_gb": RolloutsConfig().batch_tokens * per_token / GB,
        "runs": rows,
    }


def _card(total: float) -> int | None:
    return next((card for card in CARDS_GB if 1.1 * total / GB + 1 <= card), None)


def hours(shape: str, n_weights: int, n_teacher: int, options: argparse.Namespace) -> dict[str, float]:
    """Return computed hours of each dear part of the chain, for the assumed utilisation and latency."""
    token_step = SECONDS_PER_LAYER * SHAPES[shape]["num_hidden_layers"]
    n_new, n_batch = SETTINGS.max_new_tokens, SETTINGS.trajectories_per_step
    student = options.prompt_tokens + n_new
    rows = RolloutsConfig().batch_tokens // student
    n_rollouts = options.questions * RolloutsConfig().n_samples
    n_predictions = 3 * options.test_questions * PredictionsConfig().n_samples  # untouched, rival, distilled
    # Two operations per weight and token, twice that for a gradient that passes frozen weights.
    distillation = 2 * n_weights * n_batch * (n_teacher + 2 * student) / OPERATIONS_PER_SECOND + n_new * token_step
    return {
        "rollouts": n_rollouts / rows * n_new * token_step / 3600,
        "neuron_scores": 2 * n_weights * n_rollouts * student / OPERATIONS_PER_SECOND / 3600,
        "distilled_adapter": SETTINGS.steps * distillation / 3600,
        "rival_adapter": SETTINGS.steps * 4 * n_weights * n_batch * student / OPERATIONS_PER_SECOND / 3600,
        "predictions": n_predictions / rows * n_new * token_step / 3600,
    }


def measure_apart(*arguments: str, lengths: tuple[int, int, int], checkpointing: bool) -> dict[str, float]:
    """Return what ``measure_step`` says in a process of its own."""
    switch = ["--checkpointing"] if checkpointing else []
    done = subprocess.run(  # noqa: S603  # this program
        [
            *(sys.executable, "-m", "benchmarks.memory", "--measure", "--lengths"),
            *(*map(str, lengths), *arguments, *switch),
        ],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def check(*, checkpointing: bool) -> dict[str, float]:
    """Return the counted and the measured peak of a step of 0.6b with four layers in float32 (GB), and their ratio."""
    lengths = (256, 512, 128)
    measured = measure_apart("--layers", "4", lengths=lengths, checkpointing=checkpointing)["step_bytes"]
    counted = count_step("0.6b", 4, lengths, checkpointing, torch.float32)
    return {"counted_gb": counted / GB, "measured_gb": measured / GB, "counted / measured": counted / measured}


def measure_on_gpu(shape: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return counted and measured peaks (GB) of a micro-batch on this GPU, and its seconds."""
    rows, n_new = [], SETTINGS.max_new_tokens
    for n_teacher, checkpointing in it.product(options.teacher_tokens, (False, True)):
        lengths = (options.prompt_tokens, n_teacher - n_new, n_new)
        found = measure_apart("--device", "cuda", "--shape", shape, lengths=lengths, checkpointing=checkpointing)
        rows.append(
            {
                "teacher_tokens": n_teacher,
                "checkpointing": checkpointing,
                "counted_step_gb": count_step(shape, None, lengths, checkpointing, torch.bfloat16) / GB,
                "measured_step_gb": found["step_bytes"] / GB,
                "measured_total_gb": found["total_bytes"] / GB,
                "seconds": found["seconds"],
            }
        )
    return rows


def main() -> None:
    """Count, check, print and store; or measure one step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES), help="(%(default)s)")
    parser.add_argument("--prompt-tokens", type=int, default=256, help="of a student's prompt (%(default)s)")
    parser.add_argument("--teacher-tokens", type=int, nargs="+", default=[2048, 4096], help="sequence (%(default)s)")
    parser.add_argument("--questions", type=int, default=2_000, help="in the pool (%(default)s)")
    parser.add_argument("--test-questions", type=int, default=1_000, help="in both tests (%(default)s)")
    parser.add_argument("--measure", action="store_true", help="print the bytes of one step with contents, and end")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda measures there (%(default)s)")
    parser.add_argument("--shape", choices=SHAPES, default="0.6b", help="of --measure (%(default)s)")
    parser.add_argument("--layers", type=int, help="of --measure; all unless given")
    parser.add_argument(
        "--lengths", type=int, nargs=3, default=[256, 1792, 256], help="of --measure: both prompts, new"
    )
    parser.add_argument("--checkpointing", action="store_true", help="in --measure")
    parser.add_argument("--output", type=Path, default=RESULTS / "memory.json", help="(%(default)s)")
    options = parser.parse_args()
    if options.measure:
        sys.stdout.write(f"{json.dumps(measure_step(options, tuple(options.lengths)))}\n")
        return
    named = ("prompt_tokens", "teacher_tokens", "questions", "test_questions")
    about = {
        "setting": {name: getattr(options, name) for name in named},
        "machine": describe_machine("memory", (*LIBRARIES, "peft", "trl")),
    }
    if options.device == "cuda":
        found = {shape: measure_on_gpu(shape, options) for shape in options.shapes}
        store_report(about | {"measured": found}, options.output)
        return
    report = {
        **about,
        "assumed": {"operations_per_second": OPERATIONS_PER_SECOND, "seconds_per_layer_and_token": SECONDS_PER_LAYER},
        "count_checked_on_cpu": {"plain": check(checkpointing=False), "checkpointing": check(checkpointing=True)},
        "computed, not measured": {shape: describe_shape(shape, options) for shape in options.shapes},
    }
    store_report(report, options.output)


if __name__ == "__main__":
    main()
