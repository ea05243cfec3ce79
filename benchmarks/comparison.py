"""What context builders, selection rules and rivals do on the reference worlds: ``python -m benchmarks.comparison``.

Every arm is a run of the stages with settings of its own: it chooses its questions, builds its contexts, trains an
adapter and answers both tests. Arms that read gold are called oracles: they show what there is to gain. What is equal
in two arms is made once, and what was made under the same settings and code is not made again (``data/worlds``).

The results file holds, beside the tables, what the worlds must satisfy for the tables to mean anything (``world``).
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch

from benchmarks.machine import describe_machine
from benchmarks.reference import BUILDER, SAME_SUBJECT, WORLDS, ReferenceRun
from benchmarks.summary import Study, markdown
from pipeline.digests import digest_json
from pipeline.fingerprint import reachable_code
from pipeline.predictions.contenders import UNTOUCHED
from pipeline.reference.make import make_world
from pipeline.seeding import derive_seed
from pipeline.store.artifact import Artifact

RESULTS = Path(__file__).parent / "results" / "comparison.json"
LIBRARIES = ("torch", "transformers", "trl", "peft")
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

    @property
    def settings(self) -> tuple[str, ...]:
        """What differs from the preset; an oracle takes the place of the random rule."""
        rule = "random" if self.rule in ORACLES else self.rule
        chosen = (f"curated_subset.rule={rule}", f"predictions.n_samples={N_SAMPLES}", "teacher_lift.n_questions=0")
        if self.learning_rate:
            return (*chosen, f"rival_adapter.learning_rate={self.learning_rate}")
        name, _, balanced = self.builder.partition(" ")
        return (
            *chosen,
            f"teacher_contexts.builder={name}",
            f"teacher_contexts.balance_answers={str(bool(balanced)).lower()}",
        )


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
    """All that is measured on one world under one seed, each figure in a file."""

    def __init__(self, world: int, seed: int) -> None:
        self.reference = ReferenceRun(world, seed)
        base, read = self.reference.base, ("gold_labels", "test_labels", "neuron_scores", "context_beliefs")
        content = [base.run.require(name).manifest.digest for name in read]
        content.append(self.reference.held_out.run.require("neuron_scores").manifest.digest)
        code = reachable_code(("benchmarks.comparison",))
        key = digest_json([base.config.model_dump(mode="json"), content, code.digest, dict(code.libraries)])[:12]
        self.folder = WORLDS / "cells" / f"{self.reference.name}-{key}"
        self.folder.mkdir(parents=True, exist_ok=True)

    def keep(self, name: str, compute: Callable[[], pl.DataFrame]) -> pl.DataFrame:
        """Return a table after storing it in its file."""
        started = time.monotonic()
        table = compute()
        unfinished = self._path(name).with_suffix(".part")
        table.write_parquet(unfinished)
        unfinished.rename(self._path(name))
        sys.stderr.write(f"{self.folder.name}: {name} ({time.monotonic() - started:.0f} s)\n")
        return table

    def kept(self, name: str, compute: Callable[[], pl.DataFrame]) -> pl.DataFrame:
        """Return the table of a file, computed when it does not stand."""
        path = self._path(name)
        return pl.read_parquet(path) if path.exists() else self.keep(name, compute)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name.replace(' ', '-').replace(':', '')}.parquet"

    def measure(self, arms: list[str]) -> None:
        """Compute what is missing; answers and selections stand in the store already or are made there."""
        reference = self.reference
        self.keep(UNTOUCHED, lambda: reference.answers(reference.base, "base_predictions", UNTOUCHED))
        self.keep("pool labels", self._pool_labels)
        for builder in CONTEXTS:
            self.kept(f"contexts {builder}", lambda b=builder: self._contexts(b))
        for name in arms:
            self.keep(name, lambda n=name: self._answers(ARMS[n]))
        self.keep("selections", self._selections)

    def _answers(self, arm: Arm) -> pl.DataFrame:
        chain = self.reference.chain(arm.name, *arm.settings)
        chain.make("curated_subset")
        if arm.rule in ORACLES:
            chain.choose(self._oracle(arm.rule), arm.rule)
        if arm.learning_rate:
            chain.make("rival_adapter")
            return self.reference.answers(chain, "rival_predictions", arm.name)
        chain.make("teacher_contexts", "teacher_lift", "distilled_adapter")
        return self.reference.answers(chain, "distilled_predictions", arm.name)

    def _pool_labels(self) -> pl.DataFrame:
        labels = self.reference.pool.pseudo_labels.join(self.reference.gold, on="id")
        return labels.with_columns(correct=pl.col("pseudo_index").eq_missing(pl.col("gold_index")))

    def _contexts(self, builder: str) -> pl.DataFrame:
        reference = self.reference
        targets, pool, contexts = reference.held_out.questions(), reference.pool, reference.contexts(builder)
        questions = pl.concat([each.pool.select("id", "question") for each in (pool, targets)])
        subjects = {key: reference.subjects[text] for key, text in questions.iter_rows()}
        pairs = contexts.select("id", shown="demonstration_ids").explode("shown", empty_as_null=False)
        told = dict(contexts.select("id", "privileged_context").iter_rows())
        figures = {
            "same_subject": pl.Series(
                [subjects[a] == subjects[b] for a, b in pairs.iter_rows()], dtype=pl.Boolean
            ).mean(),
            **_echo(pairs, targets.pseudo_labels, pool.pseudo_labels),
            "accuracy": reference.ask(told, builder, N_SAMPLES)["correct"].mean(),
        }
        return pl.DataFrame([figures], schema=dict.fromkeys(figures, pl.Float64))

    def _oracle(self, name: str) -> pl.Series:
        """Return the ids of a choice that reads gold, as many as the budget allows; ties by a hash."""
        judged = self.kept("oracle signals", self._oracle_signals)
        ties = pl.Series("tie", [derive_seed(self.reference.seed, "oracle", i) for i in judged["id"]], dtype=pl.UInt64)
        order = {
            "oracle: teachable": pl.col("alone") - pl.col("informed"),
            "oracle: teachable, balanced": pl.col("alone") - pl.col("informed"),
            "oracle: pseudo-label right": -pl.col("label").cast(pl.Float64),
        }
        ranked = judged.with_columns(ties, score=order[name]).sort("score", "tie")
        if name.endswith("balanced"):
            ranked = ranked.with_columns(turn=pl.int_range(pl.len()).over("subject")).sort("turn", "score", "tie")
        return ranked["id"].head(self._subset("random").read()["selected"].sum())

    def _oracle_signals(self) -> pl.DataFrame:
        subject = pl.col("question").replace_strict(self.reference.subjects).alias("subject")
        signals = self.reference.pool.pool.select("id", subject)
        for name, graded in self.reference.answers_in_pool().items():
            signals = signals.join(graded.group_by("id").agg(pl.col("correct").mean().alias(name)), on="id")
        return signals.join(self._pool_labels().select("id", label="correct"), on="id").sort("id")

    def _subset(self, rule: str) -> Artifact:
        return self.reference.chain(f"rule {rule}", f"curated_subset.rule={rule}").make("curated_subset")

    def _selections(self) -> pl.DataFrame:
        """Return for every rule the correlation of its score with the response's length, and what it chose."""
        judged = self.kept("oracle signals", self._oracle_signals)
        rows = []
        for rule in ("random", *RULES):
            subset = self._subset(rule)
            chosen = judged.join(subset.read().filter("selected"), on="id", how="semi")
            rows.append(
                {
                    "rule": rule,
                    "length": subset.manifest.notes.get("score_vs_length"),
                    "teachable": (chosen["informed"] - chosen["alone"]).mean(),
                    "label_right": chosen["label"].mean(),
                }
            )
        return pl.DataFrame(rows, schema_overrides={"length": pl.Float64})


def _echo(pairs: pl.DataFrame, targets: pl.DataFrame, pool: pl.DataFrame) -> dict[str, float | None]:
    """Return how often examples state their target's pseudo-answer, and the pool's majorities would by chance."""
    stated = pool.drop_nulls("pseudo_answer").select(shown="id", stated="pseudo_answer")
    own = targets.drop_nulls("pseudo_answer").select("id", own="pseudo_answer")
    share = stated["stated"].value_counts(normalize=True, name="share")
    met = pairs.join(own, on="id").join(stated, on="shown").join(share, left_on="own", right_on="stated", how="left")
    return {"echo": (met["own"] == met["stated"]).mean(), "chance": met["share"].fill_null(0.0).mean()}


def measure(world: int, seed: int, arms: list[str]) -> str:
    """Compute a cell in a process of its own and return its folder."""
    torch.set_num_threads(1)  # processes side by side; and the same sums on any number of cores
    os.environ["OMP_NUM_THREADS"] = "1"  # of the training processes
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
    parser.add_argument("--out", type=Path, default=RESULTS, help="results file (%(default)s)")
    options = parser.parse_args()
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
