"""Stage ``evaluation``: sample all models on the held-out questions, grade, and write tables and report.

Questions are read by the pool's settings and sampled as the rollouts were, both taken from the manifests of those
artifacts, so that a setting stands in one place.
"""

import json
import shlex
from pathlib import Path

import polars as pl

from pipeline.answers.read import read_answers
from pipeline.artifacts import ArtifactStore, ArtifactWriter
from pipeline.errors import SourceError
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.grade import grade
from pipeline.evaluation.metrics import DISTILLED, IN_DOMAIN, OUT_OF_DOMAIN, SFT, UNTOUCHED, summarise
from pipeline.evaluation.report import reliability_diagram, render_table, write_report
from pipeline.held_out.questions import HeldOut
from pipeline.model_config import ModelConfig
from pipeline.models import load_model
from pipeline.pool.config import RawPoolConfig
from pipeline.presets import load_config
from pipeline.rollouts.config import RolloutsConfig
from pipeline.rollouts.sample import Asking, sample_rollouts
from pipeline.stage import OPTIONAL


def evaluate(store: ArtifactStore, model: ModelConfig, section: EvaluationConfig, writer: ArtifactWriter) -> None:
    """Write the tables ``predictions`` and ``metrics``, ``report.md`` and ``reliability.png``.

    Raises SourceError when a test cannot be read or shares a question with the pool.
    """
    sampling = RolloutsConfig(**store.require("rollouts").provenance["config"])
    sampling = sampling.model_copy(update={"n_samples": section.n_samples, "seed": section.seed})
    tests = read_tests(store, section)
    adapters = _adapters(store)
    graded = []
    for name, adapter in adapters.items():
        language_model = load_model(model, adapter)
        for split, (questions, gold) in tests.items():
            rollouts = pl.concat(sample_rollouts(questions, language_model, Asking.of(sampling)))
            answers = read_answers(rollouts, questions, language_model.tokenizer)
            graded.append(grade(answers, gold, name, split))
            writer.append("predictions", graded[-1])
    predictions = pl.concat(graded)
    metrics = summarise(predictions, section)
    writer.append("metrics", metrics)
    provenance = {
        "model": model.path,
        "pool questions": store.require("pool").rows["pool"],
        "training questions": {
            name: store.require(adapter.name).notes.get("training_questions")
            for name, adapter in adapters.items()
            if adapter
        },
        "pseudo-labels that agree with gold": _pseudo_label_accuracy(store),
        "evaluation": section.model_dump(mode="json"),
        "command": _command(store, model, section),
    }
    (writer.folder / "report.md").write_text(write_report(metrics, predictions, provenance), encoding="utf-8")
    (writer.folder / "reliability.png").write_bytes(reliability_diagram(predictions))
    writer.notes = {"table": render_table(metrics)}


def read_tests(store: ArtifactStore, section: EvaluationConfig) -> dict[str, tuple[pl.DataFrame, pl.DataFrame]]:
    """Return questions (RAW_POOL) and gold answers (GOLD_LABELS) per split; raises SourceError on a leak.

    A test that was split off the pool takes the place of a file.
    """
    pool_ids = store.scan("pool").select("id").collect()["id"].implode()
    files, tests = held_out_tests(store, section), {}
    for split in (IN_DOMAIN, OUT_OF_DOMAIN):
        held_out = store.read("pool", f"{split}_test")
        if len(held_out):
            held_out = held_out.head(section.limit or len(held_out))
            tests[split] = (held_out, store.read("gold_labels").join(held_out, on="id", how="semi"))
            continue
        if split not in files:
            continue
        questions, gold = files[split].read()
        leaked = questions.filter(pl.col("id").is_in(pool_ids))
        if len(leaked):
            raise SourceError(
                f"{files[split].setting}: {len(leaked)} test questions stand in the pool too, the first at "
                f"{leaked['source'][0]}: name the file in pool.decontaminate_against, or remove them from the test"
            )
        tests[split] = (questions, gold)
    return tests


def held_out_tests(store: ArtifactStore, section: EvaluationConfig) -> dict[str, HeldOut]:
    """Return the tests read from paths, per split; without those whose place a test split off the pool takes."""
    layout = RawPoolConfig(**store.require("raw_pool").provenance["config"])
    n_held_out = store.require("pool").rows
    paths = {IN_DOMAIN: section.in_domain_path, OUT_OF_DOMAIN: section.out_of_domain_path}
    return {
        split: HeldOut(path, f"evaluation.{split}_path", layout, section.limit)
        for split, path in paths.items()
        if path is not None and not n_held_out[f"{split}_test"]
    }


def _adapters(store: ArtifactStore) -> dict[str, Path | None]:
    """Return the folder of the adapter of each model that there is."""
    adapters: dict[str, Path | None] = {UNTOUCHED: None}
    if "skipped" not in store.require("sft_adapter").notes:
        adapters[SFT] = store.root / "sft_adapter"
    return adapters | {DISTILLED: store.root / "distilled_adapter"}


def _command(store: ArtifactStore, model: ModelConfig, section: EvaluationConfig) -> str:
    """Return the command that makes the figures again: the default preset and every setting that differs from it."""
    default = load_config().model_dump(mode="json")
    used = {"model": model.model_dump(mode="json"), "evaluation": section.model_dump(mode="json")}
    used |= {name: store.require(name).provenance["config"] for name in default if name not in {*used, *OPTIONAL}}
    changes = [
        f"{name}.{key}={json.dumps(value)}"
        for name, settings in used.items()
        for key, value in settings.items()
        if value != default[name][key]
    ]
    return shlex.join(["python", "-m", "assets", *(word for change in changes for word in ("--set", change))])


def _pseudo_label_accuracy(store: ArtifactStore) -> str:
    labels = store.read("pseudo_labels").filter(pl.col("state") == "majority")
    judged = labels.join(store.read("gold_labels"), on="id")
    if judged.is_empty():
        return "no gold in the pool"
    right = judged.select(pl.col("pseudo_index").eq_missing(pl.col("gold_index")).mean()).item()
    return f"{right:.1%} of {len(judged)}"
