"""A look at the first responses of a stage, before the rest is sampled: do they state answers, and do they end?

Nothing that is stored depends on it. ``pipeline.rollouts.run`` calls it by name, so that the reading of answers, which
changes more often than sampling, does not count among the code that responses depend on.
"""

import logging
from typing import Final

import polars as pl
from transformers import PreTrainedTokenizerBase

from pipeline.answers.read import read_answers
from pipeline.generation.generator import LENGTH
from pipeline.rollouts.schemas import UNANSWERED

_logger = logging.getLogger(__name__)
FIRST: Final = 100
"""Responses that are looked at: a share of a fifth is then known to 8 points."""
MUCH: Final = 0.2
"""Share that is warned of; own choice: of five samples one is lost for the vote."""
_N_SHOWN: Final = 3
_CHARS: Final = (60, 100)
"""What is shown of a long response: its beginning, and its end, where the answer should stand."""
_ABSTAINED, _CUT, _REFUSED = "abstained", "cut", "refused"
_WARNINGS: Final = {
    _ABSTAINED: "state no answer that can be read (try another rollouts.instruction or rollouts.open_instruction, or "
    "an empty one)",
    _CUT: "were cut by the length limit (raise rollouts.max_new_tokens; a model that thinks first needs thousands, or "
    "model.chat_template={enable_thinking: false})",
    _REFUSED: "got no response, because the prompt does not fit the model or holds its special tokens (lower "
    "rollouts.max_new_tokens, context_beliefs.max_teacher_tokens or raw_pool.max_question_chars)",
}


class EarlyLook:
    """Looks at the responses of a stage to some questions as they come, and warns at most once."""

    def __init__(self, stage: str, questions: pl.DataFrame, tokenizer: PreTrainedTokenizerBase) -> None:
        """Look at responses to ``questions`` (columns ``id``, ``question`` and ``options`` of schema RAW_POOL)."""
        self._stage, self._questions, self._tokenizer = stage, questions, tokenizer
        self._seen: list[pl.DataFrame] = []
        self._is_early = self._is_open = True

    def see(self, rollouts: pl.DataFrame) -> pl.DataFrame:
        """Take what was sampled next, of schema ROLLOUTS, and return it; judges as soon as ``FIRST`` are there."""
        if self._is_open:
            self._seen.append(rollouts)
            if self._is_early and self._n_seen >= FIRST:
                self._is_early = False
                self._judge()
        return rollouts

    def pause(self) -> None:
        """Judge again where a piece of the work ends: the first responses were those to the shortest prompts."""
        if self._is_open and not self._is_early:
            self._judge()
            self._is_open = False
            self._seen.clear()

    @property
    def _n_seen(self) -> int:
        return sum(map(len, self._seen))

    def _judge(self) -> None:
        rollouts = pl.concat(self._seen)
        read = rollouts.join(read_answers(rollouts, self._questions, self._tokenizer), on=["id", "sample"])
        is_refused = pl.col("finish_reason").is_in(UNANSWERED)
        read = read.with_columns(
            (pl.col("answer").is_null() & ~is_refused).alias(_ABSTAINED),
            (pl.col("finish_reason") == LENGTH).alias(_CUT),
            is_refused.alias(_REFUSED),
        )
        shares = read.select(pl.col(_WARNINGS).mean()).row(0, named=True)
        faults = [fault for fault, share in shares.items() if share > MUCH]
        if not faults:
            return
        self._is_open = False
        shown = read.filter(pl.any_horizontal(faults)).unique("id", keep="first", maintain_order=True).head(_N_SHOWN)
        lines = [f"of the first {len(read)} responses {shares[fault]:.0%} {_WARNINGS[fault]}" for fault in faults]
        lines += [f"  {_quoted(text)} ({why})" for text, why in shown.select("response", "extraction").iter_rows()]
        _logger.warning("%s: %s", self._stage, "\n".join(lines))


def _quoted(response: str) -> str:
    """Return a response on one line, the middle of a long one left out."""
    begin, end = _CHARS
    return repr(response if len(response) <= begin + end else f"{response[:begin]} ... {response[-end:]}")
