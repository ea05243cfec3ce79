"""What each signal is worth, against gold: ``python -m benchmarks.signals docs/studies/signals.yaml``.

The one arm of the study is made for every world and seed (what stands is taken over), and each run's signals are held
against whether its pseudo-labels are right, what the teacher gains, and what its student gained. Of a run that stands
elsewhere, ``--run NAME PRESET STORE RUN``, it is only read whether its pseudo-labels are right; nothing is sampled.
Gold is read here and by nothing that curates.
"""

import argparse
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import torch

from benchmarks.signal_page import forest, write_page
from benchmarks.signal_statistics import figure, learnt_rows, resamples, signal_rows, with_p_adjusted
from benchmarks.signal_tables import read_signals, signal_table
from pipeline.chain import materialize
from pipeline.config import Config
from pipeline.digests import digest_json
from pipeline.fingerprint import reachable_code
from pipeline.paths import resolve_path
from pipeline.presets import load_config
from pipeline.selection.rules import RULES
from pipeline.selection.subset import select_subset
from pipeline.stages import open_store, stage_of
from pipeline.store.store import Run
from pipeline.study.config import cells, read_study, run_name
from pipeline.study.run import answer_cells, configure, make_worlds

_READ = ("pool", "rollouts", "neuron_scores", "context_beliefs", "gold_labels")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.signals", description=__doc__)
    parser.add_argument("study", type=Path, help="YAML file of a study with one arm, which is trained")
    parser.add_argument("--store", type=Path, default=Path("data/studies"), help="folder of its runs (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="cells side by side (%(default)s)")
    standing = ("NAME", "PRESET", "STORE", "RUN")
    parser.add_argument("--run", nargs=4, action="append", default=[], metavar=standing, help="a run that stands")
    parser.add_argument(
        "--out", type=Path, default=Path("docs/studies/signals"), help="folder of results (%(default)s)"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)  # the same sums on any number of cores
    study, root = read_study(options.study), resolve_path(options.store)
    make_worlds(study.worlds, root)
    for cell, made in answer_cells(study, root, options.jobs):
        if isinstance(made, str):
            sys.exit(f"{cell}: {made}")
    store, tables, overlap, causal = open_store(root), dict[str, list[pl.DataFrame]](), [], []
    for cell in cells(study):
        run, config = store.run(run_name(study, cell)), configure(study, cell, root)
        world, kept = f"world {cell.world}", _kept(run, config)
        overlap.append(_overlap(world, kept))
        if world not in tables:
            causal += _causal(world, run, config, kept)
        tables.setdefault(world, []).append(_table(run, config, root / "signals"))
    for name, preset, folder, run_of in options.run:
        run, config = open_store(Path(folder)).run(run_of), load_config(preset)
        overlap.append(_overlap(name, _kept(run, config)))
        tables[name] = [signal_table(run, config, config.curated_subset.seed, is_asked=False)]
    worlds = [f"world {world.name}" for world in study.worlds]
    results = {
        "signals": with_p_adjusted(signal_rows(tables, worlds), ["world", "outcome", "kind"]),
        "learnt": with_p_adjusted(learnt_rows(tables, worlds), ["outcome"]),
        "overlap": pl.concat(overlap).group_by("world", "rule", "other", maintain_order=True).mean(),
        "causal": with_p_adjusted(causal, ["world"]),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    for name, table in results.items():
        table.write_parquet(options.out / f"{name}.parquet")
    (options.out / "forest.png").write_bytes(forest(results["signals"]))
    page = write_page(results, tables, shlex.join(["python", "-m", "benchmarks.signals", *sys.argv[1:]]))
    (options.out / "report.md").write_text(page, encoding="utf-8")
    sys.stdout.write(page)


def _table(run: Run, config: Config, cache: Path) -> pl.DataFrame:
    """Return the run's table of signals, kept by what it was made of."""
    read = [run.require(name).manifest.digest for name in _READ]
    if config.curated_subset.rule == "random":
        read.append(run.require("distilled_adapter").manifest.digest)
    code = reachable_code(("benchmarks.signal_tables",), Path(__file__).parents[1])
    path = cache / f"{digest_json([code.digest, config.curated_subset.seed, *read])[:32]}.parquet"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        signal_table(run, config, config.curated_subset.seed).write_parquet(unfinished)
        unfinished.replace(path)
        sys.stderr.write(f"{run.name}: signals made\n")
    return pl.read_parquet(path)


def _kept(run: Run, config: Config) -> dict[str, set[str]]:
    """Return what every rule keeps of a run."""
    signals, kept = read_signals(run, config.curated_subset.seed), {}
    for rule in RULES:
        if rule != "full":
            chosen = select_subset(signals, config.curated_subset.model_copy(update={"rule": rule}))
            kept[rule] = set(chosen.filter("selected")["id"])
    return kept


def _overlap(world: str, kept: Mapping[str, set[str]]) -> pl.DataFrame:
    """Return the Jaccard similarity of what every two rules keep."""
    pairs = [(world, one, other, len(a & b) / len(a | b)) for one, a in kept.items() for other, b in kept.items()]
    return pl.DataFrame(pairs, schema=["world", "rule", "other", "jaccard"], orient="row")


def _causal(world: str, run: Run, config: Config, kept: Mapping[str, set[str]]) -> list[dict[str, object]]:
    """Return how much more silencing leading neurons costs in what a rule keeps, beyond random neurons (nats)."""
    section = config.causal_check.model_copy(update={"n_questions": run.require("pool").manifest.rows["pool"]})
    materialize(stage_of("causal_check"), section, config.model, run)
    table = run.require("causal_check").read().sort("id")
    excess, rows = (table["drop_silenced"] - table["drop_random"]).to_numpy(), []
    for rule, ids in kept.items():
        chosen = table["id"].is_in(list(ids)).to_numpy()
        drawn = [counts for _, counts in resamples(world, len(table), 1)]
        more = np.array(
            [np.average(excess, weights=c * chosen) - np.average(excess, weights=c * ~chosen) for c in drawn]
        )
        rows.append({"world": world, "rule": rule, "mean": excess[chosen].mean(), "n": len(ids), **figure(more)})
    return rows


if __name__ == "__main__":
    main()
