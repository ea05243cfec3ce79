"""Responses of the student while it trains, drawn by (seed, step, question): what on-policy objectives train on.

TRL 1.16 samples with transformers' ``generate`` and the process's one random state: a response depends on its batch
mates, on the number of micro-batches and on what was drawn before; and several processes draw alike, since SDFT does
not seed them apart. Here the rollouts' own decoding (``pipeline.generation``) draws each response by a seed of its own,
so micro-batches, processes and a resumed run change none, up to the rounding of the forward pass.

Pinned by ``tests/training/test_sampling.py``.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from pipeline.generation.config import Sampling
from pipeline.generation.generator import Completion, Request
from pipeline.generation.transformers import TransformersGenerator
from pipeline.models import LanguageModel
from pipeline.seeding import derive_seed


def sample_responses(
    language_model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    keys: Sequence[tuple[str, int]],
    seed: int,
    step: int,
) -> list[Completion]:
    """Return a response to each prompt, in order, as the model stands; it is in evaluation mode meanwhile.

    All prompts are one batch; one that exceeds the device's memory is made again in smaller ones. No graph is kept.

    Args:
        language_model: Model (``get_base_model()`` of a PEFT model, whose adapter counts) and tokenizer.
        prompts: Token ids of each rendered prompt, not empty.
        sampling: Temperature, top-p and length limit.
        keys: Question of each prompt, and number of the response within it, from 0; each pair once in a step.
        seed: The run's.
        step: Optimizer steps done; with seed and key it determines the draws.

    Raises ModelError when one response alone exceeds the memory, or the logits are not finite.
    """
    requests = [
        Request(question, number, derive_seed(seed, "student", step, question, number), prompt)
        for prompt, (question, number) in zip(prompts, keys, strict=True)
    ]
    whole = len(prompts) * (max(map(len, prompts)) + sampling.max_new_tokens)
    with without_dropout(language_model.model):
        lists = list(TransformersGenerator(language_model, whole).sample(requests, sampling))
    found = {(completion.request.id, completion.request.sample): completion for part in lists for completion in part}
    return [found[key] for key in keys]


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Keep the model in evaluation mode within the block."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
