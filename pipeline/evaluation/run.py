"""The stage ``evaluation``: read the answers of all models, grade them, and write tables and report."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from pipeline.answers.read import read_answers
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.grade import grade
from pipeline.evaluation.metrics import IN_DOMAIN, OUT_OF_DOMAIN, summarise
from pipeline.evaluation.report import reliability_diagram, render_table, write_report
from pipeline.models import load_tokenizer
from pipeline.predictions.contenders import CONTENDERS
from pipeline.stage import Task
from pipeline.store.artifact import Artifact


def run(task: Task[EvaluationConfig]) -> None:
    """Write the tables ``predictions`` and ``metrics``, ``report.md`` and ``reliability.png``."""
    tokenizer, writer, graded = load_tokenizer(task.model), task.writer, []
    models, notes = _contenders(task.inputs)
    for split in (IN_DOMAIN, OUT_OF_DOMAIN):
        questions = task.inputs["tests"].read(split)
        gold = test_gold(task.inputs, split, questions)
        for name, artifact in models.items() if len(questions) else ():
            shards = [read_answers(shard.collect(), questions, tokenizer) for shard in artifact.scan_shards(split)]
            graded.append(grade(pl.concat(shards), gold, name, split, artifact.read(f"{split}_p_true")))
            writer.append("predictions", graded[-1])
    predictions = pl.concat(graded)
    metrics = summarise(predictions, task.section)
    writer.append("metrics", metrics)
    lift = task.inputs["teacher_lift"].manifest.notes
    provenance = {
        "model": task.model.path,
        "pool questions": task.inputs["pool"].manifest.rows["pool"],
        "training questions": {name: found["training_questions"] for name, found in notes.items()},
        "training stopped early": {
            name: f"at step {found['stopped_at']}, step {found['kept_step']} kept: {found['stopped_because']}"
            for name, found in notes.items()
            if "stopped_at" in found
        },
        "lift": lift.get("verdict") or lift["skipped"],
        "pseudo-labels that agree with gold": _pseudo_label_accuracy(task.inputs),
        "evaluation": task.section.model_dump(mode="json"),
        "command": task.command(),
    }
    methods = {name: f"{found['title']}. {' '.join(found['summary'].split())}" for name, found in notes.items()}
    report = write_report(metrics, predictions, provenance, methods)
    (writer.folder / "report.md").write_text(report, encoding="utf-8")
    (writer.folder / "reliability.png").write_bytes(reliability_diagram(predictions))
    writer.notes = {"table": render_table(metrics)}


def plot(evaluation: Artifact) -> bytes:
    """Return the reliability diagram."""
    return (evaluation.folder / "reliability.png").read_bytes()


def _contenders(inputs: Mapping[str, Artifact]) -> tuple[dict[str, Artifact], dict[str, dict[str, Any]]]:
    """Return predictions, and the notes of adapters, by what their models are called; those left out are not there."""
    predictions, adapters = {}, {}
    for contender in CONTENDERS:
        notes = inputs[contender.adapter[0]].manifest.notes if contender.trained else {}
        if "skipped" not in notes:
            label = contender.label or notes["label"]
            predictions[label] = inputs[contender.predictions]
            if contender.trained:
                adapters[label] = notes
    return predictions, adapters


def test_gold(inputs: Mapping[str, Artifact], split: str, questions: pl.DataFrame) -> pl.DataFrame:
    """Return the gold answers of a test: its own, or the pool's where it was split off the pool."""
    own = inputs["test_labels"].read(split)
    return inputs["gold_labels"].read().join(questions, on="id", how="semi") if own.is_empty() else own


def _pseudo_label_accuracy(inputs: Mapping[str, Artifact]) -> str:
    labels = inputs["pseudo_labels"].read().filter(pl.col("state") == "majority")
    judged = labels.join(inputs["gold_labels"].read(), on="id")
    if judged.is_empty():
        return "no gold in the pool"
    right = judged.select(pl.col("pseudo_index").eq_missing(pl.col("gold_index")).mean()).item()
    return f"{right:.1%} of {len(judged)}"
