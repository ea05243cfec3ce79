"""What one neuron-scoring pass costs, on a random model of Qwen3-0.6B's shape with fewer layers, in float32.

CPU seconds on the same batch, interleaved, as medians (with one thread that is wall time on an idle machine; other
programs do not count): the backbone alone, the model with logits, and the scoring pass with
each cut; then once, as its own oracle, the formulation that multiplies W_down^T W_U over the whole vocabulary in every
layer. Response tokens are drawn uniformly, so nearly all differ: the dearest case. ``python -m benchmarks.scoring``.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from pipeline.config import NeuronScoresConfig
from pipeline.neurons.architecture import MlpStack, find_mlp_stack
from pipeline.neurons.collector import collect_activations
from pipeline.neurons.contribution import contributions, token_alignment, unembedding_rows
from pipeline.neurons.score import Scored, score_batch

RESULTS = Path(__file__).parent / "results" / "scoring.json"


def build_model(n_layers: int) -> Qwen3ForCausalLM:
    """Return a random model with the widths and vocabulary of Qwen3-0.6B."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=151_936,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=n_layers,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=True,
        pad_token_id=None,
        eos_token_id=None,
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config).eval()


def vocabulary_contributions(activations: Tensor, W_down: Tensor, W_U: Tensor, tokens: Tensor) -> Tensor:
    """Return contributions ``[N, M]`` by way of W_down^T W_U, ``[M, V]``: the oracle."""
    return activations * (W_down.T @ W_U.T)[:, tokens].T


def over_layers(
    stack: MlpStack, tokens: Tensor, n_prompt: int, formula: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
) -> list[Tensor]:
    """Run the backbone on ``tokens [B, S]`` and return each layer's contributions to the response, ``[N, M]``."""
    said, results = tokens[:, n_prompt:].flatten(), []

    def consume(layer: int, activations: Tensor) -> None:
        predicting = activations[:, n_prompt - 1 : -1].reshape(-1, stack.d_mlp)
        results.append(formula(predicting, stack.W_down[layer], stack.W_U, said))

    with collect_activations(stack, "act_fn", consume):
        stack.backbone(input_ids=tokens, use_cache=False)
    return results


def gathered_contributions(activations: Tensor, W_down: Tensor, W_U: Tensor, tokens: Tensor) -> Tensor:
    """Return contributions ``[N, M]`` by the product's own formulation."""
    return contributions(activations, token_alignment(unembedding_rows(W_U, tokens), W_down))


def seconds(run: Callable[[], object]) -> float:
    """Return the CPU time of one call, all threads together."""
    start = time.process_time()
    run()
    return time.process_time() - start


@torch.inference_mode()
def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return CPU times and ratios."""
    model = build_model(options.layers)
    stack = find_mlp_stack(model)
    n_prompt, n_response = options.prompt_tokens, options.response_tokens
    tokens = torch.randint(151_936, (options.rollouts, n_prompt + n_response))
    batch = [Scored(str(i), 0, row[:n_prompt], row[n_prompt:], 0.0) for i, row in enumerate(tokens.tolist())]
    runs: dict[str, Callable[[], object]] = {
        "backbone": lambda: stack.backbone(input_ids=tokens, use_cache=False),
        "with_logits": lambda: model(input_ids=tokens, use_cache=False),
        "scoring_entries": lambda: score_batch(batch, stack, NeuronScoresConfig(cut="entries")),
        "scoring_neurons": lambda: score_batch(batch, stack, NeuronScoresConfig(cut="neurons")),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(options.repeats + 1):
        for name, run in runs.items():
            spent = seconds(run)
            if repeat:  # the first round warms up
                times[name].append(spent)
    median = {name: statistics.median(values) for name, values in times.items()}
    start = time.process_time()
    oracle = over_layers(stack, tokens, n_prompt, vocabulary_contributions)
    median["vocabulary_formulation"] = time.process_time() - start
    own = over_layers(stack, tokens, n_prompt, gathered_contributions)
    difference = max(float((a - b).abs().max()) for a, b in zip(own, oracle, strict=True))
    scoring = median["scoring_entries"]
    return {
        "median_cpu_seconds": median,
        "all_cpu_seconds": times,
        "ratios": {
            "scoring_entries / backbone": scoring / median["backbone"],
            "scoring_neurons / backbone": median["scoring_neurons"] / median["backbone"],
            "scoring_entries / with_logits": scoring / median["with_logits"],
            "vocabulary_formulation / scoring_entries": median["vocabulary_formulation"] / scoring,
        },
        "response_tokens_per_cpu_second": options.rollouts * n_response / scoring,
        "largest_contribution_logits": max(float(layer.max()) for layer in own),
        "largest_difference_from_oracle_logits": difference,
    }


def describe_machine() -> dict[str, Any]:
    """Return what the figures depend on besides the code."""
    cpu = [line.partition(":")[2].strip() for line in _cpu_lines() if line.startswith("model name")]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", "-m", "benchmarks.scoring", *sys.argv[1:]]),
        "cpu": cpu[0] if cpu else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "transformers", "polars", "numpy")},
    }


def _cpu_lines() -> list[str]:
    source = Path("/proc/cpuinfo")
    return source.read_text(encoding="utf-8").splitlines() if source.exists() else []


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in [("layers", 8), ("rollouts", 4), ("prompt-tokens", 128), ("response-tokens", 128)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    setting = {name: value for name, value in vars(options).items() if name != "output"}
    report = {"setting": setting, "machine": describe_machine(), **measure(options)}
    text = json.dumps(report, indent=2) + "\n"
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
