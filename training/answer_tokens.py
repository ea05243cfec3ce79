"""Which tokens of a response state its answer.

Named where it is used, not imported: an adapter depends on the reading of answers only where its loss does.
"""

from collections.abc import Callable, Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from pipeline.adapters.job import TrainingJob
from pipeline.answers.extract import extract_answer, opens_thought
from pipeline.answers.spans import token_span
from pipeline.deduplication.schemas import POOL
from pipeline.models import decode
from training.inputs import scan_input

Find = Callable[[str, Sequence[int], Sequence[int], bool], tuple[int, int]]


def answer_tokens(job: TrainingJob, tokenizer: PreTrainedTokenizerBase, orders: Mapping[str, Sequence[int]]) -> Find:
    """Return a function from question id, prompt, response (token ids) and whether it is whole to the answer's span.

    A span is the first token and the one after the last; (0, 0) where no answer is stated. ``orders`` are the indices
    of the options at each letter, of the questions whose prompt does not show them as the pool does. Raises
    ArtifactError for a pool that is not there (``scan_input``).
    """
    columns = ("id", "question", "options", "permutation")
    asked = {key: tuple(row) for key, *row in scan_input(job, "pool", POOL).select(columns).collect().iter_rows()}

    def find(key: str, prompt_ids: Sequence[int], response_ids: Sequence[int], is_finished: bool) -> tuple[int, int]:
        question, options, order = asked[key]
        text, shown = decode(tokenizer, response_ids), [options[index] for index in orders.get(key, order)]
        in_thought = opens_thought(tokenizer.decode(prompt_ids))
        found = extract_answer(text, shown, is_finished, question, in_thought)
        return token_span(tokenizer, response_ids, found.span) if found.span else (0, 0)

    return find
