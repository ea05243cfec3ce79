"""Model cards: where an adapter, or a model merged with it, comes from and how to use it.

They name no times and no machine's paths.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import polars as pl
import yaml
from huggingface_hub import ModelCard, ModelCardData

from pipeline.model_config import ModelConfig
from pipeline.paths import resolve_path

TAG: Final = "neuron-opsd"
"""Tag of every card."""
# Jinja; what fills the fields is never read as a template itself.
_CARD: Final = """\
---
{{ card_data }}
---

# {{ kind }} by {{ title }}

{{ summary }}

{% if evaluation %}## Evaluation

{{ evaluation }}

{% endif %}## Lineage

| | |
|---|---|
{{ lineage }}

## Settings

```yaml
{{ settings }}```

## Use

{{ use }}
"""
_PEFT: Final = """\
```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = "{base}"
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base{revision}), "path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained(base{revision})
```"""


@dataclass(frozen=True)
class Trained:
    """What is to be told of an adapter."""

    stage: str
    """Stage that trained it."""
    objective: str
    """What it was trained for."""
    model: ModelConfig
    """Its base model."""
    model_fingerprint: str
    """Digest of the base model."""
    lineage: Mapping[str, str]
    """SHA-256 of each input of the stage."""
    fingerprint: str
    """Digest of everything that determines the adapter."""
    settings: Mapping[str, Any]
    """Training settings that determine it."""
    notes: Mapping[str, Any]
    """The artifact's notes."""
    log: pl.DataFrame
    """Rows of TRAINING_LOG."""


@dataclass(frozen=True)
class Exported:
    """What a card tells of a folder that leaves the store."""

    merged: bool
    """Whether the adapter is merged into its base model."""
    dtype: str
    """Type of the merged weights."""
    evaluation: str
    """What the run's evaluation says, as Markdown; empty where it says nothing of this adapter."""
    commands: str
    """Commands that serve it, as shell lines."""


def render_card(trained: Trained, exported: Exported | None = None) -> ModelCard:
    """Return the README.md of an adapter in the store, or of what was ``exported`` from there."""
    merged = exported is not None and exported.merged
    model, notes = trained.model, trained.notes
    revision = f', revision="{model.revision}"' if model.revision else ""
    use = [] if merged else [_PEFT.format(base=model.path, revision=revision)]
    use += [f"```sh\n{exported.commands}\n```"] if exported else []
    # The hub refuses a card whose base model is none of its own (huggingface/autotrain-advanced#651).
    named = exported is None or not resolve_path(model.path).is_dir()
    header = ModelCardData(
        base_model=model.path if named else None,
        library_name="transformers" if merged else "peft",
        pipeline_tag="text-generation",
        tags=[*([] if merged else ["lora"]), TAG, trained.objective],
    )
    lineage = _lineage(trained) | ({"weights": exported.dtype} if exported and merged else {})
    return ModelCard.from_template(
        header,
        template_str=f"{_CARD}\n",  # Jinja drops the last line break
        kind="Language model" if merged else "LoRA adapter",
        title=notes["title"],
        summary=notes["summary"],
        evaluation=exported.evaluation if exported else "",
        lineage="\n".join(f"| {name} | {value} |" for name, value in lineage.items()),
        settings=yaml.safe_dump({trained.stage: dict(trained.settings)}, sort_keys=False),
        use="\n\n".join(use),
    )


def _lineage(trained: Trained) -> dict[str, object]:
    model, notes, losses = trained.model, trained.notes, trained.log["loss"].to_list()
    last = losses[-max(1, len(losses) // 10) :]
    return {
        "base model": f"`{model.path}`" + (f", revision `{model.revision}`" if model.revision else ""),
        "base model fingerprint": f"`{trained.model_fingerprint}`",
        "training questions": notes["training_questions"],
        **{f"`{name}`, SHA-256": f"`{digest}`" for name, digest in trained.lineage.items()},
        "run fingerprint": f"`{trained.fingerprint}`",
        "first loss": f"{losses[0]:.4f} nats per response token",
        "final loss": f"{sum(last) / len(last):.4f} nats per response token, mean of {len(last)} steps",
        **{key.replace("_", " "): notes[key] for key in ("stopped_at", "stopped_because", "kept_step") if key in notes},
    }
