"""The stage ``merged_model``: what a round leaves to the next one.

Merged rather than stacked on the base model with the adapters of all rounds before it: the weights are the same to the
last bit, since stacking merges them one after the other in the same type when it loads them
(``tests/rounds/test_merge.py``), and whatever reads a model reads this one.
"""

import shutil
from typing import Final

import polars as pl
import torch

from pipeline.models import load_model
from pipeline.rounds.config import RoundsConfig
from pipeline.stage import Task

MODEL_FOLDER: Final = "model"
"""Folder of the model within the artifact: what lies beside it, such as the manifest, is not part of the weights."""
_SHARD: Final = "5GB"
"""Largest file of weights."""


def run(task: Task[RoundsConfig]) -> None:
    """Write the merged model, in the type that it was loaded in, and the norm of each of its weights."""
    folder = task.writer.folder / MODEL_FOLDER
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was cut off
    cpu = task.model.model_copy(update={"device": "cpu"})  # the same sums wherever it is made
    with torch.inference_mode():
        merged = load_model(cpu, task.inputs["distilled_adapter"].folder)
        weights = merged.model.state_dict().items()
        rows = [(name, " x ".join(map(str, w.shape)), w.double().norm().item()) for name, w in weights]
    merged.model.save_pretrained(folder, max_shard_size=_SHARD)
    merged.tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        shutil.copymode(folder / "config.json", path)  # safetensors 0.8 leaves weights to their owner alone
    task.writer.append("merged_model", pl.DataFrame(rows, schema=["tensor", "shape", "norm"], orient="row"))
