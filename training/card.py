"""The model card: where an adapter comes from and how to load it; no times and no machine's paths."""

from pathlib import Path
from typing import Final

import polars as pl
import yaml

from pipeline.artifacts import digest_file
from pipeline.jobs import DistillationJob
from pipeline.models import model_fingerprint
from pipeline.section import Section

_CARD: Final = """\
---
{header}---

# LoRA adapter by on-policy self-distillation

The base model, trained towards its own predictions given worked examples (Neuron-OPSD). No gold label was used:
questions, contexts and targets come from the base model's own answers and neurons.

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


def render_card(job: DistillationJob, n_questions: int, log: pl.DataFrame) -> str:
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
        "tags": ["lora", "self-distillation", "neuron-opsd"],
    }
    return _CARD.format(
        header=yaml.safe_dump(header, sort_keys=False),
        lineage="\n".join(f"| {name} | {value} |" for name, value in _lineage(job, n_questions, log).items()),
        settings=_yaml({"distilled_adapter": job.settings, "teacher_contexts": job.teacher_contexts}),
        base=job.model.path,
        revision=f', revision="{job.model.revision}"' if job.model.revision else "",
    )


def _lineage(job: DistillationJob, n_questions: int, log: pl.DataFrame) -> dict[str, object]:
    losses = log["loss"].to_list()
    last = losses[-max(1, len(losses) // 10) :]
    return {
        "base model": f"`{job.model.path}`" + (f", revision `{job.model.revision}`" if job.model.revision else ""),
        "base model fingerprint": f"`{model_fingerprint(job.model)}`",
        "training questions": n_questions,
        "selection rule": f"`{job.curated_subset.rule}`",
        "context builder": f"`{job.teacher_contexts.builder}`",
        "contexts, SHA-256": f"`{digest_file(Path(job.contexts_path))}`",
        "run fingerprint": f"`{job.fingerprint}`",
        "first loss": f"{losses[0]:.4f} nats per response token",
        "final loss": f"{sum(last) / len(last):.4f} nats per response token, mean of {len(last)} steps",
    }


def _yaml(sections: dict[str, Section]) -> str:
    tree = {name: section.model_dump(mode="json") for name, section in sections.items()}
    return yaml.safe_dump(tree, sort_keys=False)
