"""What it costs to sample G responses to a prompt, on a random model of a published shape.

Processor seconds on the same requests in one batch, interleaved, as medians (with one thread that is wall time on an
idle machine, and other programs do not count; on a GPU, wall seconds of a synchronised device): this project's
sampling, and ``generate`` of transformers at the same settings, where each row runs its own prompt. No token ends a
response, so both make as many. Then with end tokens that fall at random, drawn nearly uniformly: rows leave as they
end, or all stay until the last has ended. The last norm is scaled so that the nucleus holds as few tokens as a trained
model's (SmolLM2-135M: 3 in the median, 42 in the 99th percentile); at the initial scale it is most of the vocabulary.
``python -m benchmarks.sampling``; on a GPU ``--device cuda --dtype bfloat16 --shape qwen3-4b``.
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from benchmarks.machine import RESULTS, describe_machine, store_report
from benchmarks.scoring import seconds
from pipeline.generation.config import Sampling
from pipeline.generation.generator import Request
from pipeline.generation.transformers import TransformersGenerator
from pipeline.models import LanguageModel

SHAPES: dict[str, dict[str, Any]] = {
    "smollm2": {
        "model_type": "llama",
        "vocab_size": 49_152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
    "qwen3-4b": {
        "model_type": "qwen3",
        "vocab_size": 151_936,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
}
SCALE = {"smollm2": 8.0, "qwen3-4b": 4.0}
"""Of the last norm; the width of the logits grows with the root of the model's."""
STOP_SHARE = 1 / 32
"""Of the vocabulary that ends a response, where ends are wanted."""


def build_model(shape: str, device: str, dtype: str) -> LanguageModel:
    """Return a random model with tied embeddings, in evaluation mode, that no token ends."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        **SHAPES[shape],
        tie_word_embeddings=True,
        max_position_embeddings=8192,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config).to(getattr(torch, dtype)).eval()
    model.get_decoder().norm.weight.data.mul_(SCALE[shape])
    return LanguageModel(model, SimpleNamespace(eos_token_id=None))


def lengths(model: LanguageModel, requests: list[Request], sampling: Sampling) -> list[int]:
    """Sample in one batch, and return the number of tokens of each response."""
    (batch,) = TransformersGenerator(model, 1_000_000_000).sample(requests, sampling)
    return [len(completion.response_ids) for completion in batch]


def generate(model: LanguageModel, requests: list[Request], sampling: Sampling) -> None:
    """Sample in one batch with ``generate``."""
    settings = GenerationConfig(**sampling.model_dump(), do_sample=True, top_k=0, pad_token_id=0)
    ids = torch.tensor([request.prompt_ids for request in requests], device=model.device)
    tokens = model.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings)
    assert tokens.shape[1] == ids.shape[1] + sampling.max_new_tokens


def medians(runs: dict[str, Callable[[], object]], repeats: int, device: str) -> dict[str, float]:
    """Return the median seconds of each run, measured in turns; the first round warms up."""
    rounds = [{name: seconds(run, device) for name, run in runs.items()} for _ in range(repeats + 1)]
    return {name: statistics.median(each[name] for each in rounds[1:]) for name in runs}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return times, ratios and tokens per second."""
    model, device = build_model(options.shape, options.device, options.dtype), options.device
    vocabulary = model.model.config.vocab_size
    prompts = torch.randint(vocabulary, (options.prompts, options.prompt_tokens)).tolist()
    requests = [
        Request(f"{i:04}", sample, i * options.samples + sample, prompt)
        for i, prompt in enumerate(prompts)
        for sample in range(options.samples)
    ]
    fixed = Sampling(max_new_tokens=options.response_tokens)
    shared = medians(
        {"own": lambda: lengths(model, requests, fixed), "generate": lambda: generate(model, requests, fixed)},
        options.repeats,
        device,
    )
    spread = Sampling(temperature=50, top_p=1, max_new_tokens=options.spread_tokens)  # no loops, which never end
    stops = torch.randperm(vocabulary)[: int(vocabulary * STOP_SHARE)].tolist()

    def sample_ends(stop_ids: list[int] | None, sampling: Sampling) -> list[int]:
        model.model.generation_config.eos_token_id = stop_ids
        return lengths(model, requests, sampling)

    ended = sample_ends(stops, spread)
    longest = spread.model_copy(update={"max_new_tokens": max(ended)})
    ends = medians(
        {"leaving": lambda: sample_ends(stops, spread), "staying": lambda: sample_ends(None, longest)},
        options.repeats,
        device,
    )
    return {
        "median_seconds": {**shared, **ends},
        "ratios": {
            "own / generate": shared["own"] / shared["generate"],
            "rows leave / rows stay": ends["leaving"] / ends["staying"],
        },
        "response_tokens_per_second": {
            **{name: len(requests) * options.response_tokens / spent for name, spent in shared.items()},
            **{name: sum(ended) / spent for name, spent in ends.items()},
        },
        "mean_and_longest_response_with_ends": [statistics.mean(ended), max(ended)],
    }


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in [("prompts", 8), ("samples", 5), ("prompt-tokens", 160), ("response-tokens", 16)]:
        parser.add_argument(f"--{name}", type=int, default=default, help="(%(default)s)")
    parser.add_argument("--spread-tokens", type=int, default=64, help="limit where ends fall at random (%(default)s)")
    parser.add_argument("--shape", choices=SHAPES, default="smollm2", help="(%(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(%(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="(%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the processor (%(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS / "sampling.json", help="(%(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    setting = {name: value for name, value in vars(options).items() if name != "output"}
    store_report({"setting": setting, "machine": describe_machine("sampling"), **measure(options)}, options.output)


if __name__ == "__main__":
    main()
