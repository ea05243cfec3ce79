"""What context builders, selection rules and rivals do on the reference worlds: ``python -m benchmarks.comparison``.

For each world and seed the chain runs up to the neuron scores once; every arm then chooses its questions, builds its
contexts, trains an adapter and answers both tests. Arms that read gold are called oracles: they show what there is to
gain. Each arm's answers are kept under ``data/worlds``, so that a study that was cut off goes on where it was; after a
change of code begin afresh with ``--fresh``.

The results file holds, beside the tables, what the worlds must satisfy for the tables to mean anything (``world``).
"""

import argparse
import json
import multiprocessing
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch

from benchmarks.machine import describe_machine
from benchmarks.reference import N_BELIEFS, POOL, SAME_SUBJECT, WORLDS, ReferenceRun
from benchmarks.summary import Study, markdown
from pipeline.digests import digest_file, digest_json
from pipeline.evaluation.metrics import IN_DOMAIN, OUT_OF_DOMAIN, UNTOUCHED
from pipeline.model_fingerprint import model_fingerprint
from pipeline.models import LanguageModel
from pipeline.reference.make import make_world
from pipeline.seeding import derive_seed
from pipeline.selection.confounds import confounds
from pipeline.selection.rule import Signals
from pipeline.teacher.echo import answer_echo

RESULTS = Path(__file__).parent / "results" / "comparison.json"
LIBRARIES = ("torch", "transformers", "trl", "peft")
BUILDER = "stem_overlap"
"""Builder under which rules and oracles are compared."""
CONTEXTS = (
    *("none", "random", "lexical", "hidden_cosine", "neuron_overlap", "neuron_overlap balanced", "rationale_overlap"),
    *("stem_overlap", SAME_SUBJECT),
)
RULES = (
    *("neuron_support", "neuron_support_per_token", "neuron_support_residual", "neuron_agreement", "stem_coverage"),
    *("vote_share", "self_certainty", "disagreement", "length", "belief_shift", "confident_shift"),
)
N_SAMPLES = 4
"""Samples per test question and arm; the untouched model is asked for the preset's eight."""
LEARNING_RATES = (1e-3, 3e-3, 1e-2)
"""Of fine-tuning on votes: below, at and beyond its best."""


@dataclass(frozen=True)
class Arm:
    """What is trained: distillation with a rule and a builder, or fine-tuning at a rate."""

    rule: str
    builder: str = ""
    learning_rate: float = 0.0

    @property
    def name(self) -> str:
        """Name in the tables."""
        if self.builder:
            return f"{self.rule} + {self.builder}"
        return f"SFT at {self.learning_rate:g}" + ("" if self.rule == "random" else f", {self.rule}")


ORACLES = ("oracle: teachable, balanced", "oracle: teachable", "oracle: pseudo-label right")
PUBLISHED = Arm("neuron_support", "neuron_overlap")
ARMS = {
    arm.name: arm
    for arm in (
        Arm("random", BUILDER),
        *(Arm("random", learning_rate=rate) for rate in LEARNING_RATES),
        *(Arm("confident_shift", learning_rate=rate) for rate in LEARNING_RATES[:2]),  # the default's own rows
        PUBLISHED,
        *(Arm(rule, BUILDER) for rule in ("confident_shift", "belief_shift", *ORACLES)),
        *(Arm("random", builder) for builder in CONTEXTS if builder not in ("none", BUILDER, SAME_SUBJECT)),
        *(Arm(rule, BUILDER) for rule in RULES if not rule.endswith("_shift")),
    )
}


class Cell:
    """All that is measured on one world under one seed, each figure kept in a file."""

    def __init__(self, world: int, seed: int) -> None:
        self.run = ReferenceRun(world, seed)
        questions = [digest_file(path) for path in sorted(self.run.folder.glob("*.jsonl"))]
        content = [*questions, model_fingerprint(self.run.config.model)]
        self.key = digest_json([self.run.config.model_dump(mode="json"), content, N_BELIEFS, N_SAMPLES])[:12]
        self.folder = WORLDS / "cells" / f"world-{world}-seed-{seed}-{self.key}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._signals: Signals | None = None

    def kept(self, name: str, compute: Callable[[], pl.DataFrame]) -> pl.DataFrame:
        """Return the table of a file, computed when it does not stand."""
        path = self.folder / f"{name.replace(' ', '-').replace(':', '')}.parquet"
        if not path.exists():
            started = time.monotonic()
            table = compute()
            table.write_parquet(path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)
            sys.stderr.write(f"{self.folder.name}: {name} ({time.monotonic() - started:.0f} s)\n")
        return pl.read_parquet(path)

    def measure(self, arms: list[str]) -> None:
        """Compute what is missing."""
        self.kept(UNTOUCHED, lambda: self._answers(self.run.base(), UNTOUCHED, self.run.config.evaluation.n_samples))
        self.kept("pool labels", self._pool_labels)
        for builder in CONTEXTS:
            self.kept(f"contexts {builder}", lambda b=builder: self._contexts(b))
        for name in arms:
            self.kept(name, lambda n=name: self._answers(self._train(ARMS[n]), n))
        self.kept("selections", self._selections)

    def _answers(self, model: LanguageModel, name: str, n_samples: int = N_SAMPLES) -> pl.DataFrame:
        splits = (IN_DOMAIN, OUT_OF_DOMAIN)
        return pl.concat([self.run.ask(model, name, split, n_samples=n_samples) for split in splits])

    def _pool_labels(self) -> pl.DataFrame:
        labels = self.run.pool.pseudo_labels.join(self.run.gold, on="id")
        return labels.with_columns(correct=pl.col("pseudo_index").eq_missing(pl.col("gold_index")))

    def _contexts(self, builder: str) -> pl.DataFrame:
        run = self.run
        contexts = run.contexts(builder, run.held_out)
        together = run.together()
        subjects = {key: run.subjects[text] for key, text in together.pool.select("id", "question").iter_rows()}
        pairs = contexts.select("id", shown="demonstration_ids").explode("shown", empty_as_null=False).rows()
        echo = answer_echo(contexts, together.pseudo_labels, together.pool, together.rollouts)
        figures = {
            "same_subject": sum(subjects[a] == subjects[b] for a, b in pairs) / len(pairs) if pairs else None,
            "echo": echo.get("answer_echo"),
            "chance": echo.get("answer_echo_by_chance"),
            "accuracy": run.ask(run.base(), builder, IN_DOMAIN, contexts, N_SAMPLES)["correct"].mean(),
        }
        return pl.DataFrame([figures], schema=dict.fromkeys(figures, pl.Float64))

    @property
    def signals(self) -> Signals:
        """What rules look at."""
        if self._signals is None:
            self._signals = self.run.signals(BUILDER)
        return self._signals

    def _train(self, arm: Arm) -> LanguageModel:
        ids = self._oracle(arm.rule) if arm.rule in ORACLES else self._chosen(arm.rule)
        if arm.learning_rate:
            return self.run.fine_tune(ids, arm.learning_rate)
        return self.run.distil(self.run.contexts(arm.builder, self.run.pool.only(ids)))

    def _chosen(self, rule: str) -> pl.Series:
        return self.run.subset(rule, self.signals).filter("selected")["id"]

    def _oracle(self, name: str) -> pl.Series:
        """Return the ids of a choice that reads gold, as many as the budget allows; ties by a hash."""
        judged = self.kept("oracle signals", self._oracle_signals)
        count = self._chosen("random").len()
        ties = pl.Series("tie", [derive_seed(self.run.seed, "oracle", i) for i in judged["id"]], dtype=pl.UInt64)
        order = {
            "oracle: teachable": pl.col("alone") - pl.col("informed"),
            "oracle: teachable, balanced": pl.col("alone") - pl.col("informed"),
            "oracle: pseudo-label right": -pl.col("label").cast(pl.Float64),
        }
        ranked = judged.with_columns(ties, score=order[name]).sort("score", "tie")
        if name.endswith("balanced"):
            ranked = ranked.with_columns(turn=pl.int_range(pl.len()).over("subject")).sort("turn", "score", "tie")
        return ranked["id"].head(count)

    def _oracle_signals(self) -> pl.DataFrame:
        run = self.run
        contexts = run.contexts(BUILDER, run.pool)
        share = {
            name: run.ask(run.base(), name, POOL, told, N_BELIEFS)
            .group_by("id")
            .agg(pl.col("correct").mean().alias(name))
            for name, told in (("alone", None), ("informed", contexts))
        }
        subject = pl.col("question").replace_strict(run.subjects).alias("subject")
        labels = self._pool_labels().select("id", label="correct")
        questions = run.pool.pool.select("id", subject)
        return questions.join(share["alone"], on="id").join(share["informed"], on="id").join(labels, on="id").sort("id")

    def _selections(self) -> pl.DataFrame:
        """Return for every rule the correlation of its score with the response's length, and what it chose."""
        judged = self.kept("oracle signals", self._oracle_signals)
        rows = []
        for rule in ("random", *RULES):
            subset = self.run.subset(rule, self.signals)
            chosen = judged.join(subset.filter("selected"), on="id", how="semi")
            notes = confounds(subset, self.signals)
            rows.append(
                {
                    "rule": rule,
                    "length": notes.get("score_vs_length"),
                    "teachable": (chosen["informed"] - chosen["alone"]).mean(),
                    "label_right": chosen["label"].mean(),
                }
            )
        return pl.DataFrame(rows, schema_overrides={"length": pl.Float64})


def measure(world: int, seed: int, arms: list[str]) -> str:
    """Compute a cell in a process of its own and return its folder."""
    torch.set_num_threads(1)  # processes side by side; and the same sums on any number of cores
    cell = Cell(world, seed)
    cell.measure(arms)
    return str(cell.folder)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.comparison", description=__doc__)
    parser.add_argument("--worlds", type=int, nargs="+", default=[0, 1], help="seeds of worlds (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of runs (%(default)s)")
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS), help="arms to train (all)")
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each (%(default)s)")
    parser.add_argument("--fresh", action="store_true", help="forget what earlier studies measured")
    parser.add_argument("--out", type=Path, default=RESULTS, help="results file (%(default)s)")
    options = parser.parse_args()
    if options.fresh:
        shutil.rmtree(WORLDS / "cells", ignore_errors=True)
        shutil.rmtree(WORLDS / "runs", ignore_errors=True)
    for world in set(options.worlds) - {0}:
        make_world(world, WORLDS / str(world))  # before processes that would make it side by side
    cells = [(world, seed) for seed in options.seeds for world in options.worlds]
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        folders = list(pool.map(measure, *zip(*cells, strict=True), [options.arms] * len(cells)))
    study = Study({cell: Path(folder) for cell, folder in zip(cells, folders, strict=True)}, options.arms)
    report = {**describe_machine("comparison", LIBRARIES), **study.report()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(markdown(report))


if __name__ == "__main__":
    main()
