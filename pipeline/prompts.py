"""How questions, worked examples and teacher contexts become text: one place for all stages.

Templates come from this file or from the configuration. Questions and model output only ever fill their
fields, once: they are never read as templates.
"""

from collections.abc import Sequence

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

TEACHER_PROMPT_TEMPLATE = "{privileged_context}{prompt}"
"""How the teacher's context and the question join; handed to TRL, whose own default puts the context last."""


def render_question(question: str, options: Sequence[str], instruction: str = "") -> str:
    """Return the user message for a question: its text, lettered options, and the instruction, if any."""
    lines = [question, *(f"{letter}. {text}" for letter, text in zip(LETTERS, options, strict=False))]
    return "\n".join(lines) + (f"\n\n{instruction}" if instruction else "")


def render_demonstrations(pairs: Sequence[tuple[str, str]]) -> str:
    """Return the privileged context for (prompt, response) pairs; empty when there are none."""
    if not pairs:
        return ""
    shown = "".join(f"Example\n{prompt}\nResponse: {response}\n\n" for prompt, response in pairs)
    return f"{shown}Now the question\n"


def render_teacher_prompt(privileged_context: str, prompt: str) -> str:
    """Return the teacher's user message exactly as the trainer composes it."""
    return TEACHER_PROMPT_TEMPLATE.format(privileged_context=privileged_context, prompt=prompt)
