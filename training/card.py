"""The model card: where an adapter comes from and how to load it; no times and no machine's paths."""

from collections.abc import Mapping
from typing import Any, Final

import polars as pl
import yaml
from huggingface_hub import ModelCard, ModelCardData

from pipeline.adapters.config import TrainingConfig
from pipeline.adapters.job import TrainingJob
from pipeline.model_fingerprint import model_fingerprint
from training.objectives.objective import Objective

# Jinja; what fills the fields is never read as a template itself.
_CARD: Final = """\
---
{{ card_data }}
---

# LoRA adapter by {{ title }}

{{ summary }}

## Lineage

| | |
|---|---|
{{ lineage }}

## Settings

```yaml
{{ settings }}```

## Use

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = "{{ base }}"
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base{{ revision }}), "path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained(base{{ revision }})
```
"""


def render_card(
    job: TrainingJob, objective: Objective[Any], settings: TrainingConfig, notes: Mapping[str, Any], log: pl.DataFrame
) -> ModelCard:
    """Return the README.md of an adapter.

    Args:
        job: The job that made it.
        objective: What it was trained for.
        settings: Its training settings.
        notes: The artifact's notes.
        log: Rows of TRAINING_LOG.
    """
    header = ModelCardData(
        base_model=job.model.path,
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["lora", "neuron-opsd", job.objective],
    )
    sections = {job.stage: settings.material()}  # named as in the configuration
    return ModelCard.from_template(
        header,
        template_str=f"{_CARD}\n",  # Jinja drops the last line break
        title=objective.title,
        summary=objective.summary,
        lineage="\n".join(f"| {name} | {value} |" for name, value in _lineage(job, notes, log).items()),
        settings=yaml.safe_dump(sections, sort_keys=False),
        base=job.model.path,
        revision=f', revision="{job.model.revision}"' if job.model.revision else "",
    )


def _lineage(job: TrainingJob, notes: Mapping[str, Any], log: pl.DataFrame) -> dict[str, object]:
    losses = log["loss"].to_list()
    last = losses[-max(1, len(losses) // 10) :]
    return {
        "base model": f"`{job.model.path}`" + (f", revision `{job.model.revision}`" if job.model.revision else ""),
        "base model fingerprint": f"`{model_fingerprint(job.model)}`",
        "training questions": notes["training_questions"],
        **{f"`{name}`, SHA-256": f"`{digest}`" for name, digest in job.lineage.items()},
        "run fingerprint": f"`{job.fingerprint}`",
        "first loss": f"{losses[0]:.4f} nats per response token",
        "final loss": f"{sum(last) / len(last):.4f} nats per response token, mean of {len(last)} steps",
        **{key.replace("_", " "): notes[key] for key in ("stopped_at", "stopped_because", "kept_step") if key in notes},
    }
