"""Telling one set of weights from another, without loading any: no stage that stands needs torch."""

import json
from typing import Any

from pipeline.digests import digest_json, digest_unchanged
from pipeline.model_config import ModelConfig
from pipeline.paths import resolve_path


def model_fingerprint(config: ModelConfig) -> str:
    """Return a digest of the weights and settings: file contents of a local folder, or hub id and commit.

    Raises ModelError for a model that is neither a folder nor on the hub.
    """
    folder = resolve_path(config.path)
    if folder.is_dir():
        files = sorted(p for p in folder.iterdir() if p.suffix in {".safetensors", ".json", ".jinja", ".model"})
        content: Any = {path.name: digest_unchanged(path) for path in files}
    else:
        from pipeline.models import hub_commit

        content = {"hub": config.path, "commit": hub_commit(config)}
    dtype = _stored_dtype(config) if config.dtype == "auto" else config.dtype
    return digest_json({"content": content, "dtype": dtype, "chat_template": config.chat_template})


def _stored_dtype(config: ModelConfig) -> str:
    try:
        declared = json.loads((resolve_path(config.path) / "config.json").read_text(encoding="utf-8"))
        return str(declared.get("dtype") or declared["torch_dtype"])
    except (OSError, ValueError, KeyError):  # on the hub, or declared in another way
        from pipeline.models import weights_dtype

        return weights_dtype(config)
