"""What neuron scoring costs on random models of published shapes: one pass, and rollouts that share their prompts.

Processor seconds on the same batch, interleaved, as medians (with one thread that is wall time on an idle machine, and
other programs do not count; on a GPU, wall seconds of a synchronised device): at Qwen3's widths with fewer layers, the
backbone alone, the model with logits, and the scoring pass with each cut. Then once, as its own oracle, the formulation
that multiplies W_down^T W_U over the whole vocabulary in every layer: per rollout, as an implementation that scores one
response at a time does, and once for the batch. Response tokens are drawn uniformly, so nearly all differ: the dearest
case.

Shared prompts: questions of 5 rollouts each, at SmolLM2-135M's shape, prompts of 160 tokens, against a backbone forward
of every whole rollout in one batch without padding. Tokens are drawn by Zipf's law, as in a text, and again uniformly.
How alike the neuron sets are with shared prompts and without is said beside it.
``python -m benchmarks.scoring``; on a GPU ``--device cuda --dtype bfloat16 --shape 4b --layers 36 --shared-shape 4b``.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from benchmarks.machine import RESULTS, describe_machine, store_report
from pipeline.neurons.architecture import MlpStack, find_mlp_stack
from pipeline.neurons.batch import score_apart, score_shared
from pipeline.neurons.collector import collect_activations
from pipeline.neurons.config import NeuronScoresConfig
from pipeline.neurons.contribution import contributions, token_alignment, unembedding_rows
from pipeline.neurons.rollout import Rollout
from pipeline.neurons.tables import response_table

VOCABULARY = 151_936
SHAPES = {
    "0.6b": {"hidden_size": 1024, "intermediate_size": 3072, "num_attention_heads": 16},
    "4b": {"hidden_size": 2560, "intermediate_size": 9728, "num_attention_heads": 32},
}


SMOLLM2 = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3}
N_LAYERS = {"135m": 30, "0.6b": 28, "4b": 36}


def build_model(shape: str, n_layers: int, device: str = "cpu", dtype: str = "float32") -> PreTrainedModel:
    """Return a random model with the widths and vocabulary of a published Qwen3, or of SmolLM2-135M (``135m``)."""
    torch.manual_seed(0)
    with torch.device(device):  # drawn there: billions of weights take a processor minutes
        return _build(shape, n_layers).to(getattr(torch, dtype)).eval()


def _build(shape: str, n_layers: int) -> PreTrainedModel:
    if shape == "135m":
        llama = LlamaConfig(vocab_size=49_152, num_hidden_layers=n_layers, tie_word_embeddings=True, **SMOLLM2)
        return LlamaForCausalLM(llama)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        num_hidden_layers=n_layers,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=True,
        pad_token_id=None,
        eos_token_id=None,
        bos_token_id=None,
        **SHAPES[shape],
    )
    return Qwen3ForCausalLM(config)


def vocabulary_contributions(activations: Tensor, W_down: Tensor, W_U: Tensor, tokens: Tensor) -> Tensor:
    """Return contributions ``[N, M]`` by way of W_down^T W_U, ``[M, V]``: the oracle."""
    return activations.float() * (W_down.float().T @ W_U.float().T)[:, tokens].T


def gathered_contributions(activations: Tensor, W_down: Tensor, W_U: Tensor, tokens: Tensor) -> Tensor:
    """Return contributions ``[N, M]`` by the product's own formulation."""
    return contributions(activations, token_alignment(unembedding_rows(W_U, tokens), W_down))


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


def seconds(run: Callable[[], object], device: str) -> float:
    """Return the processor time of one call, all threads together, or the wall time of the GPU."""
    if device == "cpu":
        start = time.process_time()
        run()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def interleaved(runs: dict[str, Callable[[], object]], options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the seconds of each run, round by round, without the first, which warms up."""
    rounds = [[seconds(run, options.device) for run in runs.values()] for _ in range(options.repeats + 1)]
    return {name: list(times) for name, times in zip(runs, zip(*rounds[1:], strict=True), strict=True)}


@torch.inference_mode()
def measure_shared(options: argparse.Namespace) -> dict[str, Any]:
    """Return what rollouts that share their prompts cost, by the length of the responses (tokens)."""
    shape, report = options.shared_shape, {}
    model = build_model(shape, N_LAYERS[shape], options.device, options.dtype)
    stack, vocabulary = find_mlp_stack(model), torch.arange(1.0, model.config.vocab_size + 1)
    laws = {"zipf": 1 / vocabulary, "uniform": torch.ones_like(vocabulary)}
    for n_response in (16, 256):
        batches = {
            law: [
                Rollout(0, str(question), sample, prompt, torch.multinomial(weights, n_response, True).tolist())
                for question in range(options.questions)
                for prompt in [torch.multinomial(weights, 160, True).tolist()]
                for sample in range(5)
            ]
            for law, weights in laws.items()
        }
        tokens = torch.tensor([[*r.prompt_ids, *r.response_ids] for r in batches["zipf"]], device=options.device)
        runs: dict[str, Callable[[], object]] = {
            "backbone": partial(stack.backbone, input_ids=tokens, use_cache=False),
            "apart": partial(score_apart, batches["zipf"], stack, NeuronScoresConfig()),
            **{law: partial(score_shared, batch, stack, NeuronScoresConfig()) for law, batch in batches.items()},
        }
        times = interleaved(runs, options)
        median = {name: statistics.median(values) for name, values in times.items()}
        report[f"{n_response} response tokens"] = {
            "all_seconds": times,
            "scoring / backbone of every whole rollout": {
                name: median[name] / median["backbone"] for name in ("zipf", "uniform", "apart")
            },
            "rollouts_per_second": len(tokens) / median["zipf"],
            "mean_jaccard_of_sets, shared and apart": overlap(batches["zipf"], stack),
        }
    return report


def overlap(batch: list[Rollout], stack: MlpStack) -> float:
    """Return the mean Jaccard similarity of the rollouts' neuron sets, prompts shared and not."""
    config, sets = NeuronScoresConfig(), []
    for score in (score_shared, score_apart):
        responses, _ = score(batch, stack, config)
        tables = pl.concat([response_table(reading, stack, config) for reading in responses])
        sets.append(tables.sort("id", "sample")["neurons"].to_list())
    return statistics.mean(len({*a} & {*b}) / len({*a} | {*b}) for a, b in zip(*sets, strict=True))


@torch.inference_mode()
def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return times, ratios and, on a GPU, the peak of its memory."""
    device, n_prompt, n_response = options.device, options.prompt_tokens, options.response_tokens
    model = build_model(options.shape, options.layers, device, options.dtype)
    stack = find_mlp_stack(model)
    tokens = torch.randint(VOCABULARY, (options.rollouts, n_prompt + n_response))
    batch = [Rollout(i, str(i), 0, row[:n_prompt], row[n_prompt:]) for i, row in enumerate(tokens.tolist())]
    tokens = tokens.to(device)
    runs: dict[str, Callable[[], object]] = {
        "backbone": lambda: stack.backbone(input_ids=tokens, use_cache=False),
        "with_logits": lambda: model(input_ids=tokens, use_cache=False),
        "scoring_entries": lambda: score_apart(batch, stack, NeuronScoresConfig(cut="entries")),
        "scoring_neurons": lambda: score_apart(batch, stack, NeuronScoresConfig(cut="neurons")),
        "scoring_one_rollout": lambda: score_apart(batch[:1], stack, NeuronScoresConfig(cut="entries")),
    }
    times = interleaved(runs, options)
    median = {name: statistics.median(values) for name, values in times.items()}
    memory = {name: peak_memory(run) for name, run in runs.items()} if device != "cpu" else None
    oracle: list[list[Tensor]] = []
    median["vocabulary_formulation_one_rollout"] = seconds(
        lambda: oracle.append(over_layers(stack, tokens[:1], n_prompt, vocabulary_contributions)), device
    )
    median["vocabulary_formulation_once_for_the_batch"] = seconds(
        lambda: over_layers(stack, tokens, n_prompt, vocabulary_contributions), device
    )
    own = over_layers(stack, tokens[:1], n_prompt, gathered_contributions)
    difference = max(float((a - b).abs().max()) for a, b in zip(own, oracle[0], strict=True))
    scoring, alone = median["scoring_entries"], median["scoring_one_rollout"]
    return {
        "median_seconds": median,
        "all_seconds": times,
        "peak_gpu_bytes": memory,
        "ratios": {
            "scoring_entries / backbone": scoring / median["backbone"],
            "scoring_neurons / backbone": median["scoring_neurons"] / median["backbone"],
            "scoring_entries / with_logits": scoring / median["with_logits"],
            "vocabulary_formulation / scoring, one rollout": median["vocabulary_formulation_one_rollout"] / alone,
            "vocabulary_formulation / scoring, once for the batch": median["vocabulary_formulation_once_for_the_batch"]
            / scoring,
        },
        "tokens_per_second": {
            name: options.rollouts * (n_prompt + n_response) / median[name] for name in ("backbone", "scoring_entries")
        },
        "largest_contribution_logits": max(float(layer.max()) for layer in own),
        "largest_difference_from_oracle_logits": difference,
    }


def peak_memory(run: Callable[[], object]) -> int:
    """Return the largest GPU memory in use during one call (bytes), the model's weights included."""
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_allocated()


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in [("layers", 8), ("rollouts", 4), ("prompt-tokens", 128), ("response-tokens", 128)]:
        parser.add_argument(f"--{name}", type=int, default=default, help="(%(default)s)")
    parser.add_argument("--shape", choices=SHAPES, default="0.6b", help="widths of this published Qwen3 (%(default)s)")
    parser.add_argument("--shared-shape", choices=N_LAYERS, default="135m", help="of shared prompts (%(default)s)")
    parser.add_argument("--questions", type=int, default=2, help="that share prompts, 5 rollouts each (%(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(%(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="(%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the processor (%(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS / "scoring.json", help="(%(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    setting = {name: value for name, value in vars(options).items() if name != "output"}
    report = {**measure(options), "shared_prompts": measure_shared(options)}
    store_report({"setting": setting, "machine": describe_machine("scoring"), **report}, options.output)


if __name__ == "__main__":
    main()
