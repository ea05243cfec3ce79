"""The commands that serve an exported model, as shell lines: what to type once the servers are installed.

vLLM and transformers read the folder as it is. llama.cpp (github.com/ggml-org/llama.cpp) reads a GGUF file, which its
own converters make; they know the tokenizers of published models and refuse others.
"""

import shlex
from typing import Final

from pipeline.model_config import ModelConfig
from pipeline.paths import resolve_path

_OUTTYPES: Final = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
"""By which the converter keeps the weights as they are; its default makes 16 bits of 32."""
_RANKS: Final = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as --max-lora-rank."""


def serve_model(folder: str, dtype: str) -> str:
    """Return the commands for a merged model whose weights are of a type."""
    model, gguf = shlex.quote(folder), shlex.quote(f"{folder.rstrip('/')}.gguf")
    return "\n".join(
        [
            f"vllm serve {model}",
            f"transformers serve {model}  # pip install 'transformers[serving]'",
            f"python llama.cpp/convert_hf_to_gguf.py {model} --outtype {_OUTTYPES[dtype]} --outfile {gguf}",
            f"llama-server -m {gguf}",
        ]
    )


def serve_adapter(folder: str, model: ModelConfig, rank: int) -> str:
    """Return the commands for an adapter beside its base model."""
    adapter, base, gguf = shlex.quote(folder), shlex.quote(model.path), shlex.quote(f"{folder.rstrip('/')}.gguf")
    revision = f" --revision {shlex.quote(model.revision)}" if model.revision else ""
    limit = next((limit for limit in _RANKS if limit >= rank), rank)
    source = "--base" if resolve_path(model.path).is_dir() else "--base-model-id"
    return "\n".join(
        [
            f"vllm serve {base}{revision} --enable-lora --max-lora-rank {limit} --lora-modules adapter={adapter}",
            f"python llama.cpp/convert_lora_to_gguf.py {adapter} {source} {base} --outfile {gguf}",
            f"llama-server -m base.gguf --lora {gguf}  # base.gguf: {base} by llama.cpp/convert_hf_to_gguf.py",
        ]
    )
