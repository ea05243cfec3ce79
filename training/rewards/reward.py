"""What a reward sees of a response, and what it returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from transformers import PreTrainedTokenizerBase

from pipeline.answers.equivalence import normalise_answer
from pipeline.answers.extract import extract_answer, opens_thought
from pipeline.generation.generator import STOP, Completion
from pipeline.models import decode
from training.judge import Judge

_TAIL = 16  # last tokens of a prompt in which a chat template may open a thought, as pipeline.answers.read has it


@dataclass(frozen=True)
class Response:
    """A response that was sampled from the model that is being trained."""

    question: str
    """Id of its question, which the responses of its group share."""
    prompt: str
    """User message: question, lettered options, instruction."""
    text: str
    """Decoded without special tokens."""
    answer: str | None
    """What it states, in the form in which answers are compared: text of the option, normal form of an open answer;
    none for an abstention."""
    self_certainty: float
    """Mean over its tokens of KL(uniform, p), p at temperature 1 (nats)."""

    @classmethod
    def read(
        cls,
        completion: Completion,
        prompt: str,
        question: str,
        options: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
    ) -> Self:
        """Read the answer of a completion.

        Args:
            completion: What was sampled; it has a response.
            prompt: User message.
            question: Text of the question.
            options: In the order shown; none for an open question.
            tokenizer: Tokenizer of the model.
        """
        text, finished = decode(tokenizer, completion.response_ids), completion.finish_reason == STOP
        in_thought = opens_thought(str(tokenizer.decode(list(completion.request.prompt_ids[-_TAIL:]))))
        stated = extract_answer(text, options, finished, question, in_thought)
        answer = stated.answer if stated.answer is None or options else normalise_answer(stated.answer)
        return cls(completion.request.id, prompt, text, answer, completion.self_certainty or 0.0)


class Reward(Protocol):
    """Rewards the responses of an optimizer step."""

    def __call__(self, responses: Sequence[Response], judge: Judge, /) -> list[float]:
        """Return a finite reward for each response.

        What it returns for an abstention is of no account: that gets 0 (``training.objectives.grpo``).

        Args:
            responses: All groups of a step, each whole.
            judge: The model that is being trained, to be asked about them; raises TrainingError when its tokenizer does
                not tell Yes from No.
        """
