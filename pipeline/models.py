"""Loading the language model and its tokenizer."""

import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from jinja2 import TemplateSyntaxError
from jinja2.meta import find_undeclared_variables
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template  # 5.23 has no public way to parse one
from transformers.utils.logging import disable_progress_bar

from pipeline.errors import ModelError
from pipeline.model_config import ModelConfig
from pipeline.paths import resolve_path

_GIVEN = frozenset({"messages", "tools", "documents", "add_generation_prompt"})
"""Names that whoever renders a chat template gives it."""
_THINKING = "enable_thinking"
"""Option by which templates of Qwen3, SmolLM3, GLM-4.5 and others have the model think before it answers."""


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model in evaluation mode and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def device(self) -> torch.device:
        """Device of the model's inputs."""
        return self.model.device

    @property
    def stop_ids(self) -> list[int]:
        """Token ids that end a response: all that the generation config and the tokenizer declare."""
        declared = self.model.generation_config.eos_token_id
        ids = declared if isinstance(declared, list) else [declared]
        return sorted({i for i in [*ids, self.tokenizer.eos_token_id] if i is not None})

    @property
    def max_length(self) -> int:
        """Tokens that the model's positions allow."""
        positions = getattr(self.model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        return int(positions or self.tokenizer.model_max_length)


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """Load the tokenizer, its chat template with the options of ``config.chat_template`` set.

    A template that lets a model think has it answer at once, unless the options say otherwise. Raises ModelError when
    the tokenizer cannot be loaded or has no chat template that can be read, or for an option that the template ignores.
    """
    tokenizer = _from_pretrained(AutoTokenizer, config)
    template = getattr(tokenizer, "chat_template", None)
    if not template:
        raise ModelError(
            f"model '{config.path}': the tokenizer has no chat template: use an instruction-tuned checkpoint, "
            "or add a chat_template.jinja to the model's folder"
        )
    several = isinstance(template, dict)
    lines = _option_lines(config, tokenizer, template.values() if several else [template])
    texts = {name: _preceded(text, lines) for name, text in (template if several else {"": template}).items()}
    tokenizer.chat_template = texts if several else texts[""]
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(config: ModelConfig, adapter: Path | None = None) -> LanguageModel:
    """Load model and tokenizer on the configured device, without remote code, with an adapter merged in if given."""
    tokenizer = load_tokenizer(config)
    device = config.device if config.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    disable_progress_bar()  # of loading weights; the hub shows its own while it downloads
    # Only safetensors: other weights are pickles, which can run code and which the fingerprint does not cover.
    model = _from_pretrained(AutoModelForCausalLM, config, dtype=config.dtype, use_safetensors=True)
    if adapter is not None:
        from peft import PeftModel  # seconds of imports, for adapters only

        with warnings.catch_warnings():
            # PEFT 0.21 asks transformers 5.23 for an attribute that the latter has renamed.
            warnings.filterwarnings(
                "ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning
            )
            model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    try:
        return LanguageModel(model.to(device).eval(), tokenizer)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device '{device}': {str(error).splitlines()[0]}: set model.device to cpu or cuda") from error


@cache
def declared(path: str, revision: str | None) -> tuple[str | None, str]:
    """Return the commit of a model on the hub, and the type that a checkpoint's weights are stored in.

    Looked up once per process. Raises ModelError when it cannot be told.
    """
    config = _from_pretrained(AutoConfig, ModelConfig(path=path, revision=revision))
    return getattr(config, "_commit_hash", None), str(config.dtype or torch.float32).removeprefix("torch.")


def encode_chat(tokenizer: PreTrainedTokenizerBase, user_message: str) -> list[int]:
    """Return the token ids of a conversation of one user message, ready for the assistant's answer."""
    encoded = tokenizer.apply_chat_template(
        [{"role": "user", "content": user_message}], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    return list(encoded["input_ids"])


def decode(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    """Return the text of tokens without special tokens, white space kept as it is."""
    return str(tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def has_special_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    """Return whether ``text`` holds what the tokenizer reads as a special token, such as the end of a turn.

    In a prompt it would pass for the chat template's own and could end the user's turn or begin another.
    """
    # A template's own tokens, such as the begin of a turn, need not have a role that the tokenizer knows.
    added = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    return not (added | set(tokenizer.all_special_ids)).isdisjoint(tokenizer.encode(text, add_special_tokens=False))


def _option_lines(config: ModelConfig, tokenizer: PreTrainedTokenizerBase, templates: Iterable[str]) -> str:
    """Return template lines that set the options; they stand in the template, so that whoever renders it has them."""
    options = set().union(*(_names_read(text, config) for text in templates))
    options -= {*_GIVEN, *tokenizer.SPECIAL_TOKENS_ATTRIBUTES}
    if unknown := config.chat_template.keys() - options:
        read = (
            f"it reads {', '.join(sorted(options))}" if options else "it has no options: leave model.chat_template {}"
        )
        raise ModelError(
            f"model.chat_template: the template of '{config.path}' never reads {sorted(unknown)[0]!r}; {read}"
        )
    wanted = ({_THINKING: False} if _THINKING in options else {}) | config.chat_template
    # A literal of JSON is one of Jinja, so that no value is ever read as template.
    literals = {name: json.dumps(value, ensure_ascii=False) for name, value in wanted.items()}
    # Whoever renders it may say otherwise.
    return "".join(
        f"{{%- if {name} is not defined %}}{{%- set {name} = {literal} %}}{{%- endif %}}\n"
        for name, literal in literals.items()
    )


def _preceded(template: str, lines: str) -> str:
    """Return a template that begins with these lines; one that was saved with them has them already."""
    return template if template.startswith(lines) else lines + template


def _names_read(template: str, config: ModelConfig) -> set[str]:
    """Return the names that a template reads without having set them, functions that are always there left out."""
    try:
        environment = _compile_jinja_template(template).environment
        return find_undeclared_variables(environment.parse(template)) - environment.globals.keys()
    except TemplateSyntaxError as error:
        raise ModelError(
            f"model '{config.path}': line {error.lineno} of the chat template cannot be read ({error.message}): mend it"
        ) from error


def _from_pretrained(loader: Any, config: ModelConfig, **settings: Any) -> Any:
    folder = resolve_path(config.path)
    source = str(folder) if folder.is_dir() else config.path
    try:
        return loader.from_pretrained(source, revision=config.revision, trust_remote_code=False, **settings)
    except (OSError, ValueError, HFValidationError, HfHubHTTPError, json.JSONDecodeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"model '{config.path}' cannot be loaded ({first}): give model.path as an existing folder or hub id"
        ) from error
