"""Telling one set of weights from another, without loading any: no stage that stands needs torch."""

import json
from typing import Any, Final

from pipeline.digests import digest_json, digest_unchanged
from pipeline.errors import ModelError
from pipeline.model_config import ModelConfig
from pipeline.packaged import COMMAND, FOLDER
from pipeline.paths import resolve_path

_NOT_READ: Final = frozenset({".md", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf"})
"""Endings of files beside a model that nothing is loaded from: documents, and weights of other kinds."""


def model_fingerprint(config: ModelConfig) -> str:
    """Return a digest of the weights and settings: file contents of a local folder, or hub id and commit.

    Raises ModelError for a model that is neither a folder nor on the hub, and for the packaged one before it is made.
    """
    folder = resolve_path(config.path)
    if folder.is_dir():
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix not in _NOT_READ]
        content: Any = {path.relative_to(folder).as_posix(): digest_unchanged(path) for path in files}
    elif config.path == FOLDER:
        raise ModelError(f"model '{FOLDER}' is not made yet: {COMMAND} makes it, and so does make run PRESET=smollm2")
    else:
        from pipeline.models import declared

        content = {"hub": config.path, "commit": declared(config.path, config.revision)[0]}
    dtype = _stored_dtype(config) if config.dtype == "auto" else config.dtype
    return digest_json({"content": content, "dtype": dtype, "chat_template": config.chat_template})


def _stored_dtype(config: ModelConfig) -> str:
    try:
        stored = json.loads((resolve_path(config.path) / "config.json").read_text(encoding="utf-8"))
        return str(stored.get("dtype") or stored["torch_dtype"])
    except (OSError, ValueError, KeyError):  # on the hub, or declared in another way
        from pipeline.models import declared

        return declared(config.path, config.revision)[1]
