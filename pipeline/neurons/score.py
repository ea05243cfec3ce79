"""Stage ``neuron_scores``: run each rollout through the model once more and keep the neurons that carry its tokens.

Every rollout comes back, scored or refused with a reason, in the order in which it was given; neither the batch budget
nor the other rows change a row beyond the rounding of the forward pass itself. The rollouts of a batch that have the
same prompt run it once, but where that would change a row. Pinned by ``tests/neurons/test_score.py`` and
``test_shared_prompts.py``.
"""

import itertools as it
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial

import polars as pl

from pipeline.batching import TokenBudget
from pipeline.models import LanguageModel
from pipeline.neurons.architecture import find_mlp_stack
from pipeline.neurons.batch import can_share_prompts, score_apart, score_shared
from pipeline.neurons.config import NeuronScoresConfig
from pipeline.neurons.reading import Reading
from pipeline.neurons.rollout import Limits, Reason, Refusal, Rollout
from pipeline.neurons.tables import SCORED, STEMS, ScoreTables, response_table, stem_table

_SPANS = ("stem_start", "stem_stop", "answer_start", "answer_stop")
COLUMNS = ("id", "sample", "prompt_ids", "response_ids", "logprobs", "self_certainty", *_SPANS)
"""Columns of ``scorable`` rollouts, which scoring reads."""


def scorable(rollouts: pl.LazyFrame, answers: pl.LazyFrame) -> pl.LazyFrame:
    """Return rollouts with the places of their stated answers, from tables of schemas ROLLOUTS and ANSWERS.

    The columns are ``COLUMNS``, the rows and their order those of ``rollouts``.
    """
    stated = answers.select("id", "sample", "answer_start", "answer_stop")
    return rollouts.join(stated, on=["id", "sample"], how="left", maintain_order="left").select(COLUMNS)


class NeuronScorer:
    """Scores rollouts with one model; the batch budget, once lowered for want of memory, stays lowered."""

    def __init__(self, language_model: LanguageModel, config: NeuronScoresConfig) -> None:
        """Find the model's MLPs; raises UnsupportedModelError for a model whose neurons cannot be scored."""
        self.stack = find_mlp_stack(language_model.model)
        self.config = config
        self._limits = Limits.of(language_model)
        self._can_share = can_share_prompts(self.stack)
        self.budget = TokenBudget(config.batch_tokens)

    @property
    def n_neurons(self) -> int:
        """Neurons of the model."""
        return self.stack.n_layers * self.stack.d_mlp

    def score(self, rollouts: pl.DataFrame, done: Callable[[int], object] = lambda _: None) -> ScoreTables:
        """Return the tables for rows with the columns ``COLUMNS``, telling ``done`` how many more are finished.

        Raises ModelError when one rollout alone exceeds the device's memory. Memory is that of ``rollouts``, their
        neuron sets and one batch.
        """
        given = _read(rollouts)
        refusals = {rollout.row: refusal for rollout in given if (refusal := self._limits.refuse(rollout))}
        done(len(refusals))
        readable = [rollout for rollout in given if rollout.row not in refusals]
        together = sorted(filter(self._shares_prompt, readable), key=lambda r: (len(r.prompt_ids), r.id, r.sample))
        apart = sorted(it.filterfalse(self._shares_prompt, readable), key=lambda r: (r.n_tokens, r.id, r.sample))
        # LongRoPE chooses its factors by the longest row of a batch, so no batch may have rows on both sides.
        switch = bisect_right(apart, self._limits.rope_switch or self._limits.context, key=_n_tokens)
        scored, stems = [SCORED.to_frame()], [STEMS.to_frame()]
        for group, score in ((together, score_shared), (apart[:switch], score_apart), (apart[switch:], score_apart)):
            for batch, tables in self.budget.run(group, _n_tokens, partial(self._score, score)):
                scored += tables[:-1]
                stems.append(tables[-1])
                done(len(batch))
        responses = pl.concat(scored).sort("row")
        not_finite = Refusal(
            Reason.NOT_FINITE,
            f"activations are not finite in {str(self.stack.W_U.dtype).removeprefix('torch.')}: set model.dtype to "
            "bfloat16 or float32 and sample the rollouts again, or mend the weights",
        )
        refusals |= dict.fromkeys(responses.filter(~pl.col("finite"))["row"], not_finite)
        return ScoreTables.of(
            responses.filter("finite"),
            pl.concat(stems).sort("row").filter("finite"),
            [(given[row], refusals[row]) for row in sorted(refusals)],
        )

    def _shares_prompt(self, rollout: Rollout) -> bool:
        """Return whether others can go on from the rollout's prompt, as ``score_shared`` does; else it runs whole.

        That is where the model has linear attention or a state space (Qwen3.5, Falcon-H1, OLMo hybrid), the prompt has
        one token or ends with the stem, or LongRoPE reads the rollout, being long, otherwise than its prompt alone.
        """
        within = rollout.n_tokens <= (self._limits.rope_switch or self._limits.context)
        return self._can_share and within and max(rollout.stem_stop or 0, 1) < len(rollout.prompt_ids)

    def _score(
        self, score: Callable[..., tuple[list[Reading], Reading]], batch: Sequence[Rollout]
    ) -> list[pl.DataFrame]:
        responses, stems = score(batch, self.stack, self.config)
        tables = [response_table(reading, self.stack, self.config) for reading in responses]
        return [*tables, stem_table(stems, self.config)]


def _n_tokens(rollout: Rollout) -> int:
    return rollout.n_tokens


def _read(rollouts: pl.DataFrame) -> list[Rollout]:
    columns = rollouts.select(
        "id",
        "sample",
        "prompt_ids",
        "response_ids",
        "self_certainty",
        *_SPANS,
        mean_logprob=pl.col("logprobs").list.mean().fill_nan(None),
    )
    return [Rollout(row=row, **values) for row, values in enumerate(columns.iter_rows(named=True))]
