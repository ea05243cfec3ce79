"""How questions, worked examples and teacher contexts become text: one place for all stages.

Templates come from this file or from the configuration. Questions and model output only ever fill their
fields, once: they are never read as templates.
"""

from collections.abc import Sequence

from pipeline.errors import ArtifactError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

TEACHER_PROMPT_TEMPLATE = "{privileged_context}{prompt}"
"""How the teacher's context and the question join; handed to TRL, whose own default puts the context last."""


def render_question(question: str, options: Sequence[str], instruction: str = "") -> str:
    """Return the user message for a question: its text, lettered options, and the instruction, if any."""
    lines = [question, *(f"{letter}. {text}" for letter, text in zip(LETTERS, options, strict=False))]
    return "\n".join(lines) + (f"\n\n{instruction}" if instruction else "")


def reorder_options(
    prompt: str, question: str, options: Sequence[str], shown: Sequence[int], order: Sequence[int]
) -> str:
    """Return ``prompt`` with the question's options in another order; what stands before and after it stays.

    ``shown`` and ``order`` are the index of the option at each letter, now and then. Raises ArtifactError when the
    prompt does not hold the question as ``render_question`` lays it out.
    """
    if list(order) == list(shown):
        return prompt
    now, then = (render_question(question, [options[index] for index in indices]) for indices in (shown, order))
    before, found, after = prompt.rpartition(now)
    if not found or not (after == "" or after.startswith("\n\n")):
        raise ArtifactError(
            f"the prompt of the question '{question[:60]}' does not show question and options as the pool holds them, "
            "so they cannot be reordered: materialize 'raw_pool' again"
        )
    return before + then + after


def render_demonstrations(pairs: Sequence[tuple[str, str]]) -> str:
    """Return the privileged context for (prompt, response) pairs; empty when there are none."""
    if not pairs:
        return ""
    shown = "".join(f"Example\n{prompt}\nResponse: {response}\n\n" for prompt, response in pairs)
    return f"{shown}Now the question\n"


def render_teacher_prompt(privileged_context: str, prompt: str) -> str:
    """Return the teacher's user message exactly as the trainer composes it."""
    return TEACHER_PROMPT_TEMPLATE.format(privileged_context=privileged_context, prompt=prompt)
