"""The model card: where an adapter comes from and how to load it; no times and no machine's paths."""

from typing import Final

import polars as pl
import yaml

from pipeline.adapters.job import TrainingJob
from pipeline.models import model_fingerprint
from pipeline.section import Section
from training.objectives import OBJECTIVES

_CARD: Final = """\
---
{header}---

# LoRA adapter by {title}

{summary}

## Lineage

| | |
|---|---|
{lineage}

## Settings

```yaml
{settings}```

## Use

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = "{base}"
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base{revision}), "path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained(base{revision})
```
"""


def render_card(job: TrainingJob, n_questions: int, log: pl.DataFrame) -> str:
    """Return the README.md of an adapter.

    Args:
        job: The job that made it.
        n_questions: Training questions.
        log: Rows of TRAINING_LOG.
    """
    header = {
        "base_model": job.model.path,
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "neuron-opsd", job.objective],
    }
    objective = OBJECTIVES[job.objective]
    return _CARD.format(
        header=yaml.safe_dump(header, sort_keys=False),
        title=objective.title,
        summary=objective.summary,
        lineage="\n".join(f"| {name} | {value} |" for name, value in _lineage(job, n_questions, log).items()),
        settings=yaml.safe_dump(_settings(job), sort_keys=False),
        base=job.model.path,
        revision=f', revision="{job.model.revision}"' if job.model.revision else "",
    )


def _lineage(job: TrainingJob, n_questions: int, log: pl.DataFrame) -> dict[str, object]:
    losses = log["loss"].to_list()
    last = losses[-max(1, len(losses) // 10) :]
    return {
        "base model": f"`{job.model.path}`" + (f", revision `{job.model.revision}`" if job.model.revision else ""),
        "base model fingerprint": f"`{model_fingerprint(job.model)}`",
        "training questions": n_questions,
        **{f"`{name}`, SHA-256": f"`{digest}`" for name, digest in job.provenance["inputs"].items()},
        "run fingerprint": f"`{job.fingerprint}`",
        "first loss": f"{losses[0]:.4f} nats per response token",
        "final loss": f"{sum(last) / len(last):.4f} nats per response token, mean of {len(last)} steps",
    }


def _settings(job: TrainingJob) -> dict[str, object]:
    """Return the sections that determined the adapter, named as in the configuration."""
    sections = {name: value.model_dump(mode="json") for name, value in job if isinstance(value, Section)}
    del sections["model"]  # stands above; the device is the machine's
    return {job.artifact: sections.pop("settings"), **sections}
