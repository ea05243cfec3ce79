"""What the verdict of ``teacher_lift`` is worth, against gold: ``python -m benchmarks.lift``.

A case is a preset with settings, run up to the stage. Then the untouched model is asked all training questions anew,
without and with their own examples, and graded: what the teacher gains over a sample of the model, and over its vote,
which fine-tuning on votes could teach as well. With ``--train`` a case is trained and evaluated, too. The statistic was
chosen among others, and what counts as lift set, with seed 0 of three worlds in view; other seeds, worlds and models
are its test.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from scipy import stats

from benchmarks.machine import RESULTS, describe_machine, store_report
from benchmarks.reference import WORLDS, Chain, ReferenceRun
from pipeline.answers.read import read_answers
from pipeline.chain import run_chain
from pipeline.evaluation.confidence import vote_confidence
from pipeline.evaluation.grade import grade
from pipeline.markdown import markdown_table
from pipeline.models import load_model
from pipeline.predictions.contenders import CONTENDERS
from pipeline.presets import load_config
from pipeline.rollouts.sample import Asking, sample_rollouts
from pipeline.seeding import derive_seed
from pipeline.stages import open_store

BUILDERS = ("stem_overlap", "lexical", "hidden_cosine", "neuron_overlap balanced", "neuron_overlap", "random")
ARMS = (
    *(("random", builder) for builder in BUILDERS),
    ("confident_shift", "stem_overlap"),
    ("confident_shift", "random"),
)
"""Selection rule and context builder."""
N_SAMPLES = 4
"""Fresh responses per question and side, from which the gains are told."""
TRAINING = ("tests", *(name for contender in CONTENDERS for name in contender.adapter))
EVALUATION = (*(contender.predictions for contender in CONTENDERS), "evaluation")


@dataclass(frozen=True)
class Case:
    """A run whose verdict is compared with gold."""

    name: str
    chain: Callable[[], Chain]
    """Returns the run, made up to ``context_beliefs``."""


def settings(rule: str, builder: str) -> list[str]:
    """Return what a rule and a builder are in the configuration, its beliefs included where the rule reads them."""
    name, _, balanced = builder.partition(" ")
    sections = ["teacher_contexts", *(["context_beliefs"] if rule.endswith("_shift") else [])]
    chosen = [f"curated_subset.rule={rule}", f"predictions.n_samples={N_SAMPLES}", "rival_adapter.enabled=false"]
    for section in sections:
        chosen += [f"{section}.builder={name}", f"{section}.balance_answers={str(bool(balanced)).lower()}"]
    return chosen


def world_cases(worlds: list[int], seeds: list[int]) -> Iterator[Case]:
    """Yield the cases of reference worlds."""
    for seed in seeds:
        for world in worlds:
            for rule, builder in ARMS:
                name, chosen = f"world {world}, seed {seed}: {rule}, {builder}", settings(rule, builder)
                yield Case(
                    name, lambda w=world, s=seed, n=f"lift {rule} {builder}", c=chosen: ReferenceRun(w, s).chain(n, *c)
                )


def preset_cases(preset: str, rule: str, builders: list[str], overrides: list[str]) -> Iterator[Case]:
    """Yield a case per builder of a preset."""
    for builder in builders:

        def chain(builder: str = builder) -> Chain:
            config = load_config(preset, [*settings(rule, builder), *overrides])
            made = Chain(config, open_store(WORLDS).run(f"lift-{preset}-{rule}-{builder.replace(' ', '-')}"))
            run_chain(config, made.run, last="context_beliefs")
            return made

        yield Case(f"{preset}: {rule}, {builder}", chain)


def measure(case: Case, train: bool) -> dict[str, Any]:
    """Return the verdict of a case, its figures, and what gold says."""
    chain = case.chain()
    notes = chain.make("curated_subset", "teacher_contexts", "teacher_lift").manifest.notes
    moved = {row["figure"]: row for row in notes.get("movement", [])}
    found = {
        "case": case.name,
        "outcome": notes["outcome"],
        "lift": notes.get("lift"),
        **{f"agreement, own - {other}": _number(moved, f"own - {other}") for other in ("none", "wrong")},
        **_gold(chain),
    }
    if train:
        metrics = chain.make(*TRAINING, *EVALUATION).read("metrics")
        in_domain = (pl.col("split") == "in_domain") & (pl.col("metric") == "avg_at_k")
        row = metrics.filter(in_domain & (pl.col("model") == "distilled - untouched")).row(0, named=True)
        found["student gain"] = {"mean": row["value"], "low": row["low"], "high": row["high"]}
    sys.stderr.write(f"{json.dumps(found)}\n")
    return found


def _number(moved: dict[str, dict[str, str]], name: str) -> float | None:
    return float(moved["agreement"][name].partition(" ")[0]) if moved else None


def _gold(chain: Chain) -> dict[str, Any]:
    """Return what own examples gain on the training questions over samples without them, and over their vote."""
    config, gold = chain.config, chain.run.require("gold_labels").read()
    contexts = dict(chain.run.require("teacher_contexts").read().select("id", "privileged_context").iter_rows())
    asked = chain.run.require("pool").read().filter(pl.col("id").is_in(list(contexts)))
    asked = asked.join(gold.select("id"), on="id", how="semi")
    language_model, right = load_model(config.model), {}
    for side, told in (("alone", None), ("informed", contexts)):
        changes = {"n_samples": N_SAMPLES, "seed": derive_seed(config.rollouts.seed, "lift", side)}
        section = config.rollouts.model_copy(update=changes)
        rollouts = pl.concat(sample_rollouts(asked, language_model, Asking.of(section, section), told))
        graded = grade(read_answers(rollouts, asked, language_model.tokenizer), gold, side, "pool")
        right[side] = graded.group_by("id").agg(pl.col("correct").mean()).sort("id")["correct"].to_numpy()
        right[f"{side}, vote"] = vote_confidence(graded).sort("id")["correct"].to_numpy()
    return {
        "n": len(asked),
        "teacher": float(right["informed"].mean()),
        "teacher gain": _interval(right["informed"] - right["alone"]),
        "teacher gain over vote": _interval(right["informed"] - right["alone, vote"]),
    }


def _interval(values: np.ndarray) -> dict[str, float]:
    rng = np.random.default_rng(0)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(2_000)]
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def summarise(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how verdicts and gains go together, and the rank correlations of the statistic and of simpler ones."""
    judged = [case for case in cases if case["lift"]]
    gains = [name for name in ("teacher gain", "teacher gain over vote", "student gain") if name in judged[0]]
    counts: dict[str, dict[str, int]] = {}
    for case in cases:
        gain = case["teacher gain over vote"]
        truth = "gains" if gain["low"] > 0 else "loses" if gain["high"] < 0 else "neither shown"
        row = counts.setdefault(case["outcome"], {"gains": 0, "neither shown": 0, "loses": 0})
        row[truth] += 1
    signals = {
        "lift": [case["lift"]["mean"] for case in judged],
        **{name: [case[name] for case in judged] for name in ("agreement, own - none", "agreement, own - wrong")},
    }
    correlations = {
        name: {gain: float(stats.spearmanr(values, [case[gain]["mean"] for case in judged])[0]) for gain in gains}
        for name, values in signals.items()
    }
    return {"verdicts by the teacher's gain over the vote": counts, "rank correlations": correlations}


def _points(value: object) -> object:
    if isinstance(value, dict):
        return "{mean:+.1f} [{low:+.1f}, {high:+.1f}]".format(**{key: 100 * each for key, each in value.items()})
    return f"{100 * value:.1f}" if isinstance(value, float) else value


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lift", description=__doc__)
    parser.add_argument("--worlds", type=int, nargs="*", default=[0, 1, 2], help="seeds of worlds (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of the worlds' runs (%(default)s)")
    parser.add_argument("--preset", help="a preset whose cases are measured, too")
    parser.add_argument("--rule", default="random", help="selection rule of the preset's cases (%(default)s)")
    parser.add_argument("--builders", nargs="+", default=list(BUILDERS[:2]), help="builders of the preset's cases")
    parser.add_argument("--set", action="append", default=[], help="setting of the preset's cases, SECTION.KEY=VALUE")
    parser.add_argument(
        "--train", nargs="*", default=[], metavar="TEXT", help="train the cases whose name holds a text"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "lift.json", help="results file (%(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the same sums on any number of cores
    cases = [*world_cases(options.worlds, options.seeds)]
    if options.preset:
        cases += preset_cases(options.preset, options.rule, options.builders, options.set)
    found = [measure(case, any(text in case.name for text in options.train)) for case in cases]
    report = {**describe_machine("lift"), "n_samples": N_SAMPLES, "cases": found, **summarise(found)}
    store_report(report, options.out)
    rows = [{key: _points(value) for key, value in case.items()} for case in found]
    sys.stdout.write(markdown_table(pl.DataFrame(rows, infer_schema_length=None)) + "\n")


if __name__ == "__main__":
    main()
