"""What each signal is worth, against gold: ``python -m benchmarks.signals docs/studies/signals.yaml``.

The one arm of the study is made for every world and seed (what stands is taken over), each run's signals are held
against whether its pseudo-labels are right, what the teacher gains, and what its student gained. A run that stands
elsewhere, of a model without a study, is added by ``--run NAME PRESET STORE RUN``. Gold is read here and by nothing
that curates.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import torch

from benchmarks.signal_page import Figures, write_page
from benchmarks.signal_statistics import N_RESAMPLES, interval, learnt_rows, names_of, signal_rows
from benchmarks.signal_tables import read_signals, signal_table
from pipeline.chain import materialize
from pipeline.config import Config
from pipeline.digests import digest_json
from pipeline.paths import PROJECT_ROOT
from pipeline.presets import load_config
from pipeline.selection.config import CuratedSubsetConfig
from pipeline.selection.rules import RULES
from pipeline.selection.subset import select_subset
from pipeline.stages import open_store, stage_of
from pipeline.store.store import Run
from pipeline.study.config import cells, read_study, run_name
from pipeline.study.run import answer_cells, configure, make_worlds

_CODE = [Path(__file__).parent / f"signal_{name}.py" for name in ("tables", "probe")]
_READ = ("pool", "rollouts", "neuron_scores", "context_beliefs")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.signals", description=__doc__)
    parser.add_argument("study", type=Path, help="YAML file of a study with one arm, which is trained")
    parser.add_argument("--store", type=Path, default=PROJECT_ROOT / "data" / "studies", help="folder of its runs")
    parser.add_argument("--jobs", type=int, default=2, help="cells side by side (%(default)s)")
    parser.add_argument(
        "--run",
        nargs=4,
        action="append",
        default=[],
        metavar=("NAME", "PRESET", "STORE", "RUN"),
        help="a run that stands",
    )
    parser.add_argument("--fit", help="world that combinations are learnt on; by default the last")
    parser.add_argument("--out", type=Path, default=PROJECT_ROOT / "docs" / "studies" / "signals", help="(%(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the same sums on any number of cores
    study = read_study(options.study)
    make_worlds(study.worlds, options.store)
    for cell, made in answer_cells(study, options.store, options.jobs):
        if isinstance(made, str):
            sys.exit(f"{cell}: {made}")
    tables: dict[str, list[pl.DataFrame]] = {}
    choices: list[pl.DataFrame] = []
    causal: pl.DataFrame | None = None
    cache = options.store / "signals"
    for cell in cells(study):
        run, config = open_store(options.store).run(run_name(study, cell)), configure(study, cell, options.store)
        world = f"world {cell.world}"
        tables.setdefault(world, []).append(_table(run, config, cell.seed, run, cache))
        kept = _kept(run, cell.seed, config.curated_subset.fraction)
        choices.append(_overlap(kept, world))
        causal = _causal(run, config, kept) if causal is None else causal  # once, it says the same of each
    for name, preset, store, run_of in options.run:
        run, config = open_store(Path(store)).run(run_of), load_config(preset)
        tables[name] = [_table(run, config, 0, None, cache)]
        choices.append(_overlap(_kept(run, 0, config.curated_subset.fraction), name))
    rows = [row for world, each in tables.items() for row in signal_rows(world, each)]
    fitted = options.fit or f"world {study.worlds[-1].name}"
    options.out.mkdir(parents=True, exist_ok=True)
    signals, learnt = (pl.DataFrame(each, infer_schema_length=None) for each in (rows, learnt_rows(fitted, tables)))
    overlap = pl.concat(choices).group_by("world", "rule", "other", maintain_order=True).agg(pl.col("jaccard").mean())
    for name, table in {"signals": signals, "learnt": learnt, "overlap": overlap, "causal": causal}.items():
        table.write_parquet(options.out / f"{name}.parquet")
    sizes = {world: (len(each[0]), len(each)) for world, each in tables.items()}
    command = " ".join(["python", "-m", "benchmarks.signals", *sys.argv[1:]])
    names = names_of(next(iter(tables.values()))[0])
    page = write_page(Figures(signals, learnt, overlap, causal), sizes, fitted, names, command)
    (options.out / "report.md").write_text(page, encoding="utf-8")
    sys.stdout.write(page)


def _table(run: Run, config: Config, seed: int, adapter: Run | None, cache: Path) -> pl.DataFrame:
    """Return the run's table of signals, kept by what it was made of."""
    read = [run.require(name).manifest.digest for name in _READ]
    trained = adapter and adapter.require("distilled_adapter").manifest.digest
    key = digest_json([read, trained, seed, [path.read_text(encoding="utf-8") for path in _CODE]])[:32]
    path = cache / f"{key}.parquet"
    if not path.exists():
        made = signal_table(run, config, seed, adapter)
        cache.mkdir(parents=True, exist_ok=True)
        made.write_parquet(path)
        sys.stderr.write(f"{run.name}: signals made\n")
    return pl.read_parquet(path)


def _kept(run: Run, seed: int, fraction: float) -> dict[str, set[str]]:
    """Return what every rule keeps of a run."""
    signals, kept = read_signals(run, seed), {}
    for rule in RULES:
        if rule != "full":
            chosen = select_subset(signals, CuratedSubsetConfig(rule=rule, fraction=fraction, seed=seed))
            kept[rule] = set(chosen.filter("selected")["id"])
    return kept


def _overlap(kept: Mapping[str, set[str]], world: str) -> pl.DataFrame:
    """Return the Jaccard similarity of what every two rules keep."""
    pairs = [(one, other, len(a & b) / len(a | b)) for one, a in kept.items() for other, b in kept.items()]
    return pl.DataFrame(pairs, schema=["rule", "other", "jaccard"], orient="row").with_columns(world=pl.lit(world))


def _causal(run: Run, config: Config, kept: Mapping[str, set[str]]) -> pl.DataFrame:
    """Return what silencing leading neurons costs beyond random ones (nats), over what each rule keeps."""
    section = config.causal_check.model_copy(update={"n_questions": run.require("pool").manifest.rows["pool"]})
    materialize(stage_of("causal_check"), section, config.model, run)
    table = run.require("causal_check").read()
    excess = table.select("id", excess=pl.col("drop_silenced") - pl.col("drop_random"))
    rows = []
    for rule, ids in {"all": set(excess["id"]), **kept}.items():
        own = excess.filter(pl.col("id").is_in(list(ids)))["excess"].to_numpy()
        rng = np.random.default_rng(0)
        means = [own.mean(), *(own[rng.integers(len(own), size=len(own))].mean() for _ in range(N_RESAMPLES))]
        rows.append({"rule": rule, "n": len(own), **interval(np.array(means))})
    return pl.DataFrame(rows)


if __name__ == "__main__":
    main()
