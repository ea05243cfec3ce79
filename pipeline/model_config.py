"""Settings of the language model."""

from typing import Literal

from pydantic import FiniteFloat

from pipeline.section import Section


class ModelConfig(Section):
    """The language model: student, teacher and source of neuron scores."""

    path: str = "data/reference/model"
    """Local folder, relative to the working folder or the project, or a Hugging Face hub id."""
    revision: str | None = None
    """Hub revision (branch, tag or commit); none takes the default branch."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Weights' type; auto takes the checkpoint's."""
    device: str = "auto"
    """Torch device such as cpu, cuda or cuda:1; auto takes cuda where there is one. Results are alike up to rounding,
    so another device makes none again."""
    chat_template: dict[str, bool | int | FiniteFloat | str] = {}
    """Options of the tokenizer's chat template; one that the template never reads is an error that names those that it
    does. A template with enable_thinking gets false: to have the model think, say enable_thinking: true, and give it
    rollouts.max_new_tokens for it."""
