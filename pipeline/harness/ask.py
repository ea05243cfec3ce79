"""Asking the models of a run tasks of lm-evaluation-harness (Gao et al., 2024; written for lm-eval 0.4.13).

The models are those of the run's evaluation: the base model as it was loaded, with each adapter merged in. Answers are
judged by the tasks' own gold, which nothing before the end of the chain has seen.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from pipeline.errors import ArtifactError, ConfigError, CurationError, ModelError, one_line
from pipeline.harness.schemas import HARNESS
from pipeline.model_config import ModelConfig
from pipeline.model_fingerprint import model_fingerprint
from pipeline.models import load_model
from pipeline.predictions.contenders import CONTENDERS, differences
from pipeline.registry import suggest
from pipeline.store.artifact import Artifact
from pipeline.store.store import Run
from pipeline.table import conform


class Asked(NamedTuple):
    """What is asked of each model."""

    tasks: Mapping[str, Sequence[str]]
    """Names of tasks, or patterns of them, of each split."""
    include_path: Path | None = None
    """Folder of task files besides those of the harness."""
    limit: int | None = None
    """Documents of each task; none: all."""
    batch_size: int = 8
    """Requests at a time; bounds memory."""
    chat: bool = True
    """Whether prompts are put into the model's chat template."""


def ask(run: Run, asked: Asked) -> pl.DataFrame:
    """Return how the models of a run do the tasks, and their paired differences, as rows of schema HARNESS.

    Raises:
        ConfigError: lm-eval is not installed, or there is no such task.
        ArtifactError: The run has no trained adapter, or one that is damaged.
        ModelError: The base model is not what the adapters were trained on.
        CurationError: A task cannot be asked.
    """
    adapters = {label: adapter for label, adapter in _adapters(run) if adapter}
    if not adapters:
        raise ArtifactError(f"run '{run.name}' has no trained adapter: materialize 'distilled_adapter' first")
    base = _base(run, next(iter(adapters.values())))
    manager = _task_manager(asked)
    tasks = {split: named_tasks(manager, names) for split, names in asked.tasks.items() if names}
    rows: list[dict[str, Any]] = []
    scores: dict[tuple[str, str, str, str], dict[str, dict[int, float]]] = {}
    for label, adapter in _adapters(run):
        for split, names in tasks.items():
            found = _evaluate(base, adapter, manager, names, asked)
            for row, by_document in _figures(found):
                told = {"model": label, "split": split, "fingerprint": adapter and adapter.manifest.fingerprint, **row}
                rows.append(told)
                scores.setdefault((split, row["task"], row["filter"], row["metric"]), {})[label] = by_document
    for key, by_model in scores.items():
        rows += [dict(zip(("split", "task", "filter", "metric"), key, strict=True)) | gap for gap in _gaps(by_model)]
    table = pl.DataFrame(rows, schema=pl.DataFrame(HARNESS.empty_table()).schema)
    return pl.DataFrame(conform(table, HARNESS, where="harness"))


def _adapters(run: Run) -> Iterator[tuple[str, Artifact | None]]:
    """Yield what each model of a run is called, and its adapter; those that were not trained are left out."""
    for contender in CONTENDERS:
        adapter = run.find(f"{contender.name}_adapter") if contender.trained else None
        if adapter is None:
            if not contender.trained:
                yield str(contender.label), None
        elif "skipped" not in adapter.manifest.notes:
            if not adapter.is_intact(thorough=True):
                raise ArtifactError(f"'{adapter.name}' of run '{run.name}' is damaged: materialize it again")
            yield contender.label or adapter.manifest.notes["label"], adapter


def _base(run: Run, adapter: Artifact) -> ModelConfig:
    base = ModelConfig.model_validate(adapter.manifest.notes["model"])
    if model_fingerprint(base) != adapter.manifest.provenance["model"]:
        raise ModelError(f"'{base.path}' is no longer the model of run '{run.name}': materialize the run again")
    return base


def _task_manager(asked: Asked) -> Any:
    """Return the tasks of the folder that was named where they are enough, else with all that the harness brings."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise ConfigError(
            f"lm-evaluation-harness cannot be imported ({one_line(error)}): install it by "
            "pip install -c constraints.txt -e '.[harness]'"
        ) from error
    folder = asked.include_path
    if folder and not folder.is_dir():
        raise ConfigError(f"--include-path {folder} is no folder: name the one that holds your task files")
    own = folder and TaskManager(include_path=str(folder), include_defaults=False)
    if own and all(own.match_tasks([name]) for names in asked.tasks.values() for name in names):
        return own
    return TaskManager(include_path=folder and str(folder))  # 12 s: it reads thousands of files


def named_tasks(manager: Any, names: Sequence[str]) -> list[str]:
    """Return the tasks that names or patterns mean; raises ConfigError for one that means none."""
    for name in names:
        if not manager.match_tasks([name]):
            raise ConfigError(f"there is no task '{name}'{suggest(name, manager.all_tasks)} Own ones: --include-path")
    return list(manager.match_tasks(list(names)))


def _evaluate(
    base: ModelConfig, adapter: Artifact | None, manager: Any, tasks: Sequence[str], asked: Asked
) -> Mapping[str, Any]:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # 0.4.13 warns of every model that comes loaded
    loaded = load_model(base, adapter.folder if adapter else None)
    try:
        found = simple_evaluate(
            HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=asked.batch_size),
            tasks=list(tasks),
            task_manager=manager,
            limit=asked.limit,
            apply_chat_template=asked.chat,
            bootstrap_iters=1_000,  # of standard errors of metrics that are no means
        )
    except (OSError, ValueError, KeyError) as error:
        raise CurationError(f"{', '.join(tasks)} cannot be asked: {one_line(error)}") from error
    return dict(found or {})


def _figures(found: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], dict[int, float]]]:
    """Yield each figure of each task, and the documents' scores that it is the mean of, none where it is no mean."""
    for task, samples in found["samples"].items():
        results = found["results"][task]
        for key, value in results.items():
            metric, comma, filtered = key.partition(",")
            if not comma or metric.endswith("_stderr"):
                continue
            stderr = results.get(f"{metric}_stderr,{filtered}")
            scores = {one["doc_id"]: one.get(metric) for one in samples if one["filter"] == filtered}
            is_mean = all(isinstance(score, int | float) for score in scores.values())
            is_mean = is_mean and bool(np.isclose(np.mean(list(scores.values())), value))
            row = {"task": task, "filter": filtered, "metric": metric, "value": float(value), "n": len(scores)}
            yield row | {"stderr": stderr if isinstance(stderr, float) else None}, scores if is_mean else {}


def _gaps(by_model: Mapping[str, Mapping[int, float]]) -> Iterator[dict[str, Any]]:
    """Yield the paired differences of models on the documents of a task."""
    for name, (one, other) in differences(by_model).items():
        if by_model[one] and by_model[one].keys() == by_model[other].keys():
            gaps = np.array([by_model[one][document] - by_model[other][document] for document in by_model[one]])
            stderr = float(gaps.std(ddof=1) / np.sqrt(len(gaps))) if len(gaps) > 1 else None
            yield {"model": name, "value": float(gaps.mean()), "stderr": stderr, "n": len(gaps)}
