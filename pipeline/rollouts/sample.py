"""G sampled responses per question: prompts and seeds for a generator, and its completions as rows.

Results depend on the questions, the model and ``Asking`` only. Pinned by ``tests/rollouts/test_sample.py``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import polars as pl
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from pipeline.answers.option_tokens import option_forms
from pipeline.generation.config import Sampling
from pipeline.generation.generator import Completion, Generator, Request
from pipeline.generation.transformers import TransformersGenerator
from pipeline.models import LanguageModel, decode, encode_chat, has_special_tokens
from pipeline.prompts import render_teacher_prompt
from pipeline.rollouts.config import Prompting, SampledPrompts
from pipeline.rollouts.orders import shown_orders
from pipeline.rollouts.schemas import ROLLOUTS, SPECIAL_TOKEN_IN_PROMPT
from pipeline.rollouts.spans import Span, stem_span
from pipeline.seeding import derive_seed


class Draws(Protocol):
    """Settings of a stage that samples."""

    @property
    def n_samples(self) -> int:
        """Responses per question."""

    @property
    def seed(self) -> int:
        """Seed of the draws."""

    @property
    def batch_tokens(self) -> int:
        """Padded tokens of a batch."""


@dataclass(frozen=True)
class Asking:
    """How questions are asked, how often, and how the answers are drawn."""

    prompting: Prompting
    """What stands in the prompt."""
    sampling: Sampling
    """Settings of the draws."""
    n_samples: int
    """Responses per question."""
    seed: int
    """Seed of draws and orders, combined with question id and sample number."""
    batch_tokens: int
    """Padded tokens of a batch; bounds memory, never results."""

    @classmethod
    def of(cls, draws: Draws, prompts: SampledPrompts) -> Self:
        """Return what is asked by the settings of a stage that samples, and those that it shares with the rollouts."""
        return cls(prompts, prompts, draws.n_samples, draws.seed, draws.batch_tokens)

    def material(self) -> dict[str, Any]:
        """Return what determines responses, besides question, context and model."""
        sampling = {name: getattr(self.sampling, name) for name in Sampling.model_fields}
        prompting = {name: getattr(self.prompting, name) for name in Prompting.model_fields}
        return {**sampling, **prompting, "n_samples": self.n_samples, "seed": self.seed}


@dataclass(frozen=True)
class _Shown:
    """What the model is shown."""

    prompt: str
    prompt_ids: list[int]
    order: Sequence[int]
    watched_ids: tuple[int, ...]
    stem: Span | None
    is_refused: bool


def sample_rollouts(
    questions: pl.DataFrame,
    language_model: LanguageModel,
    asking: Asking,
    contexts: Mapping[str, str] | None = None,
    done: Callable[[int], object] = lambda _: None,
    generator: Generator | None = None,
) -> Iterator[pl.DataFrame]:
    """Yield rows of schema ROLLOUTS, one frame per batch, until every question has all its samples.

    A frame holds what became ready together, in no particular order: whoever wants a table concatenates the frames and
    sorts by ``id`` and ``sample``. Without questions nothing is yielded. A question that holds special tokens of the
    model, which could pass for the chat template's, gets no response; its rows come last.

    Args:
        questions: Columns ``id``, ``question``, ``options`` and ``permutation`` of schema RAW_POOL.
        language_model: The model that is asked.
        asking: Wording, sampling, samples per question and seed.
        contexts: What the teacher sees before the prompt, for the id of every question; none asks the questions alone.
        done: Told, after each frame, how many more responses are finished.
        generator: Backend; by default ``language_model`` through transformers. One that is kept over several calls
            keeps its batch budget, too.

    Raises:
        ModelError: One response alone exceeds the device's memory, or the logits are not finite.
    """
    shown = _show(questions, language_model.tokenizer, asking, contexts)
    requests, refused = _requests(shown, asking.seed)
    generator = generator or TransformersGenerator(language_model, asking.batch_tokens)
    for completions in generator.sample(requests, asking.sampling):
        yield _table(completions, shown, language_model.tokenizer)
        done(len(completions))
    if refused:
        yield _table(refused, shown, language_model.tokenizer)
        done(len(refused))


def _show(
    questions: pl.DataFrame,
    tokenizer: PreTrainedTokenizerBase,
    asking: Asking,
    contexts: Mapping[str, str] | None,
) -> dict[tuple[str, int], _Shown]:
    """Return the prompt of every id and sample; samples that see one order share it."""
    shown: dict[tuple[str, int], _Shown] = {}
    forms, order_seed = option_forms(tokenizer), asking.seed if asking.prompting.permute_options else None
    for row in questions.select("id", "question", "options", "permutation").iter_rows(named=True):
        context = "" if contexts is None else contexts[row["id"]]
        for order, samples in shown_orders(row["id"], row["permutation"], asking.n_samples, order_seed).items():
            prompt = render_teacher_prompt(context, asking.prompting.render(row["question"], row["options"], order))
            prompt_ids = encode_chat(tokenizer, prompt)
            prepared = _Shown(
                prompt=prompt,
                prompt_ids=prompt_ids,
                order=order,
                watched_ids=forms(tuple(row["options"][index] for index in order)).token_ids,
                stem=stem_span(tokenizer, row["question"], prompt, prompt_ids),
                is_refused=has_special_tokens(tokenizer, prompt),
            )
            shown |= {(row["id"], sample): prepared for sample in samples}
    return shown


def _requests(shown: Mapping[tuple[str, int], _Shown], seed: int) -> tuple[list[Request], list[Completion]]:
    """Return what is asked, and the rows of prompts that are not."""
    requests: list[Request] = []
    refused: list[Completion] = []
    for key, prompt in shown.items():
        request = Request(*key, derive_seed(seed, *key), prompt.prompt_ids, prompt.watched_ids)
        if prompt.is_refused:
            refused.append(Completion(request, [], [], SPECIAL_TOKEN_IN_PROMPT, None, []))
        else:
            requests.append(request)
    return requests, refused


def _table(
    completions: Sequence[Completion], shown: Mapping[tuple[str, int], _Shown], tokenizer: PreTrainedTokenizerBase
) -> pl.DataFrame:
    rows = [_row(each, shown[each.request.id, each.request.sample], tokenizer) for each in completions]
    return pl.DataFrame(pa.Table.from_pylist(rows, schema=ROLLOUTS))


def _row(completion: Completion, shown: _Shown, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    stem_start, stem_stop = shown.stem or (None, None)
    return {
        "id": completion.request.id,
        "sample": completion.request.sample,
        "prompt": shown.prompt,
        "prompt_ids": shown.prompt_ids,
        "permutation": shown.order,
        "response_ids": completion.response_ids,
        "response": decode(tokenizer, completion.response_ids),
        "logprobs": completion.logprobs,
        "self_certainty": completion.self_certainty,
        "finish_reason": completion.finish_reason,
        "watched_ids": shown.watched_ids,
        "watched_logprobs": completion.watched_logprobs,
        "stem_start": stem_start,
        "stem_stop": stem_stop,
    }
