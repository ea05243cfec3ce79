"""Settings of this room's stage."""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from pipeline.generation.config import Sampling
from pipeline.prompts import render_question
from pipeline.section import Section


class Prompting(Section):
    """How a question is put to the model."""

    instruction: str = "Think step by step, then finish with a line 'Answer: X' where X is the letter of your choice."
    """Text appended to every question in the prompt; empty for none."""
    open_instruction: str = "Think step by step, then finish with a line 'Answer: X' where X is your answer."
    """The same for questions without options; empty for none."""
    permute_options: bool = False
    """Show the options in an order drawn per sample, so that letters carry no identity; off keeps the pool's."""

    def render(self, question: str, options: Sequence[str], order: Sequence[int]) -> str:
        """Return the user message: question, lettered options, instruction.

        ``order`` is the index of the option at each letter; no ``options`` make an open question.
        """
        instruction = self.instruction if options else self.open_instruction
        return render_question(question, [options[index] for index in order], instruction)


class SampledPrompts(Sampling, Prompting):
    """What must be alike where responses are compared: how questions are put, and how answers are drawn."""


class RolloutsConfig(SampledPrompts):
    """Sampled responses per question (method: G = 5, temperature 0.6, top-p 0.95, 256 new tokens)."""

    immaterial: ClassVar[frozenset[str]] = frozenset({"batch_tokens"})

    n_samples: int = Field(default=5, ge=1)
    """Responses per question, G."""
    batch_tokens: int = Field(default=16_384, ge=1)
    """Padded prompt plus response tokens of a batch; bounds memory, never results."""
    seed: int = 0
    """Seed of the draws, combined with question id and sample number."""
