"""What the method gains on the embedded world, over seeds, with its ablations: ``python -m benchmarks.effect``.

Per seed and arm the whole chain runs (rollouts, scores, contexts, training, evaluation); stages that an arm shares with
the one before are not recomputed. Besides, the teacher's contexts are judged on held-out questions before any
training. Means over seeds come with Student's t interval over the seeds; per-seed bootstrap intervals stand in the
results file.
"""

import argparse
import json
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from pipeline.artifacts import ArtifactStore
from pipeline.chain import run_chain, stored_questions
from pipeline.config import Config
from pipeline.evaluation.evaluate import read_tests
from pipeline.evaluation.grade import grade
from pipeline.evaluation.metrics import DIFFERENCES, IN_DOMAIN
from pipeline.models import LanguageModel, load_model
from pipeline.neurons.score import NeuronScorer
from pipeline.presets import load_config
from pipeline.prompts import render_teacher_prompt
from pipeline.rollouts.sampler import sample_rollouts
from pipeline.rollouts.vote import vote
from pipeline.teacher.context import assemble_contexts
from pipeline.teacher.questions import Questions

RESULTS = Path(__file__).parent / "results" / "effect.json"
ARMS: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "random selection": ("curated_subset.rule=random",),
    "vote_share selection": ("curated_subset.rule=vote_share",),
    "random contexts": ("teacher_contexts.builder=random",),
    "no context": ("teacher_contexts.builder=none",),
}
"""Overrides of the default: 20 % of the pool by neuron_support, contexts by neuron_overlap."""
BUILDERS = ("none", "random", "neuron_overlap")


def context_accuracy(store: ArtifactStore, config: Config) -> dict[str, float]:
    """Return the share of right samples on the in-domain test per context builder, before training."""
    language_model = load_model(config.model)
    questions, gold = read_tests(store, config.evaluation)[IN_DOMAIN]
    rollouts = pl.concat(sample_rollouts(questions, language_model, config.rollouts, progress=False))
    scores = NeuronScorer(language_model, config.neuron_scores).score(rollouts).neuron_scores
    targets = Questions(questions, vote(rollouts, config.pseudo_labels), rollouts.lazy(), scores.lazy())
    accuracy = {}
    for builder in BUILDERS:
        section = config.teacher_contexts.model_copy(update={"builder": builder})
        contexts = assemble_contexts(targets, stored_questions(store), language_model.tokenizer, section)
        accuracy[builder] = _accuracy(questions, contexts, gold, (language_model, config))
    return accuracy


def _accuracy(
    questions: pl.DataFrame, contexts: pl.DataFrame, gold: pl.DataFrame, using: tuple[LanguageModel, Config]
) -> float:
    language_model, config = using
    shown = contexts.select(
        "id",
        prompt=pl.struct("privileged_context", "prompt").map_elements(
            lambda row: render_teacher_prompt(row["privileged_context"], row["prompt"]), return_dtype=pl.String
        ),
    )
    asked = questions.drop("prompt").join(shown, on="id")
    sampling = config.rollouts.model_copy(update={"n_samples": config.evaluation.n_samples})
    rollouts = pl.concat(sample_rollouts(asked, language_model, sampling, progress=False))
    return float(grade(rollouts, gold, "teacher", IN_DOMAIN)["correct"].mean())


def run_arm(store: ArtifactStore, seed: int, overrides: tuple[str, ...]) -> list[dict[str, Any]]:
    """Run the chain for one arm and return the rows of its METRICS table."""
    run_chain(load_config(overrides=overrides, seed=seed), store)
    return store.read("evaluation", "metrics").to_dicts()


def mean_interval(values: list[float]) -> dict[str, Any]:
    """Return the mean over seeds with Student's t interval at 95 %."""
    mean, n = float(np.mean(values)), len(values)
    half = float(stats.t.ppf(0.975, n - 1) * stats.sem(values)) if n > 1 else float("nan")
    return {"mean": mean, "low": mean - half, "high": mean + half, "seeds": n}


def summarise(runs: Mapping[str, list[list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    """Return one row per arm, model, test and metric: the mean over seeds with its interval."""
    rows = []
    for arm, seeds in runs.items():
        for first in seeds[0]:
            key = {name: first[name] for name in ("model", "split", "metric")}
            values = [row["value"] for run in seeds for row in run if all(row[k] == v for k, v in key.items())]
            rows.append({"arm": arm, **key, "n": first["n"], "k": first["k"], **mean_interval(values)})
    return rows


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.effect", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (%(default)s)")
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS), help="arms to run (all)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="results file (%(default)s)")
    options = parser.parse_args()
    started = time.monotonic()
    runs: dict[str, list[list[dict[str, Any]]]] = {arm: [] for arm in options.arms}
    contexts = []
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            store = ArtifactStore(Path(folder))
            for arm in options.arms:
                runs[arm].append(run_arm(store, seed, ARMS[arm]))
                print(f"seed {seed}, {arm}: done after {time.monotonic() - started:.0f} s", file=sys.stderr)
            contexts.append(context_accuracy(store, load_config(seed=seed)))
    report = {
        "command": shlex.join(["python", "-m", "benchmarks.effect", *sys.argv[1:]]),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {platform.processor() or 'CPU'}, Python {platform.python_version()}",
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "peft")},
        "seconds": round(time.monotonic() - started),
        "context accuracy before training": {b: mean_interval([c[b] for c in contexts]) for b in BUILDERS},
        "figures": summarise(runs),
        "per seed": runs,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    _print(report)


def _print(report: Mapping[str, Any]) -> None:
    for builder, figure in report["context accuracy before training"].items():
        print(f"accuracy with '{builder}' context: {_shown(figure)}")
    for row in report["figures"]:
        if row["model"] in DIFFERENCES or row["arm"] == "default":
            print(f"{row['arm']:<22} {row['model']:<21} {row['split']:<14} {row['metric']:<13} {_shown(row)}")
    print(f"{report['seconds']} s")


def _shown(figure: Mapping[str, Any]) -> str:
    return f"{figure['mean']:+.3f} [{figure['low']:+.3f}, {figure['high']:+.3f}] over {figure['seeds']} seeds"


if __name__ == "__main__":
    main()
