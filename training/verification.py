"""Self-verification: which of its responses a model certifies itself (Self-Verified Distillation, arXiv 2605.26132).

Three checks follow one another, each asked of what passed those before. All votes of a check must be for the response:

* cycle consistency: the model writes the question that the response answers, without seeing the question, and
  judges whether that is the question again;
* factuality: everything that the response states is true;
* correctness: its final answer is right.

The paper draws several votes of one judge prompt. Here votes are the more probable of Yes and No, so they repeat, and a
check has two wordings, one of which must be answered with No: a judge that says Yes to everything passes nothing.

Pinned by ``tests/training/test_verification.py``.
"""

from collections.abc import Mapping
from typing import Final

import polars as pl

from pipeline.generation.config import Sampling
from pipeline.generation.generator import Request
from pipeline.generation.transformers import TransformersGenerator
from pipeline.models import LanguageModel, decode, encode_chat, has_special_tokens
from training.judge import BATCH_TOKENS, IS_ANOTHER, IS_FALSE, IS_RIGHT, IS_SAME, IS_TRUE, IS_WRONG, Judge

CHECKS: Final[Mapping[str, Mapping[str, bool]]] = {
    "cycle_consistency": {IS_SAME: True, IS_ANOTHER: False},
    "factuality": {IS_TRUE: True, IS_FALSE: False},
    "correctness": {IS_RIGHT: True, IS_WRONG: False},
}
"""What is asked in each check, and whether Yes is a vote for the response."""
RESTATE: Final = "Response:\n{response}\n\nWhich question does this response answer? Write nothing but the question."
"""Asks for the question of a ``response``."""
_GREEDY_TOP_P: Final = 1e-6  # keeps the most probable token alone


def verify(responses: pl.DataFrame, language_model: LanguageModel) -> tuple[pl.Series, dict[str, int]]:
    """Return which responses pass all checks, and how many each check refused.

    Args:
        responses: Columns ``id``, ``sample``, ``prompt`` and ``response`` of schema ROLLOUTS.
        language_model: The model that they are of, in evaluation mode.

    A response that cannot be asked about, as it does not fit the model or holds its special tokens, fails. Raises
    TrainingError when the model cannot judge (``training.judge``).
    """
    judge, refused = Judge(language_model), dict[str, int]()
    restated = pl.Series("restated", restate(responses, language_model), dtype=pl.String)
    left = responses.select("prompt", "response", restated).with_row_index()
    for check, votes in CHECKS.items():
        n_before, left = left.height, left.drop_nulls()
        for template, is_for in votes.items():
            shares = judge.p_yes([template.format(**row) for row in left.iter_rows(named=True)])
            passed = [share is not None and (share > 0.5 if is_for else share < 0.5) for share in shares]
            left = left.filter(pl.Series(passed, dtype=pl.Boolean))
        refused[check] = n_before - left.height
    return pl.int_range(len(responses), eager=True).is_in(left["index"].to_list()), refused


def restate(responses: pl.DataFrame, language_model: LanguageModel) -> list[str | None]:
    """Return the question that the model reads out of each response; None where it cannot be asked for it."""
    tokenizer = language_model.tokenizer
    longest = max((len(encode_chat(tokenizer, prompt)) for prompt in responses["prompt"]), default=1)
    asked = {
        (question, sample): RESTATE.format(response=response)
        for question, sample, response in responses.select("id", "sample", "response").iter_rows()
    }
    requests = [
        Request(*key, seed=0, prompt_ids=encode_chat(tokenizer, text))
        for key, text in asked.items()
        if not has_special_tokens(tokenizer, text)
    ]
    greedy = Sampling(temperature=1.0, top_p=_GREEDY_TOP_P, max_new_tokens=longest)
    batches = TransformersGenerator(language_model, BATCH_TOKENS).sample(requests, greedy)
    written = {(each.request.id, each.request.sample): each.response_ids for batch in batches for each in batch}
    return [decode(tokenizer, written[key]) if written.get(key) else None for key in asked]
