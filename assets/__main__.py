"""Materialize the whole asset graph of a run, or a part of it, and print what came of it.

Stages of which settings, inputs, model and code did not change are not computed again, whatever run has made them.
"""

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import polars as pl

from assets import STORE, build_definitions, resources, run_name
from assets.keys import artifact_of, asset_key
from assets.stages import build_assets
from pipeline.config import Config
from pipeline.errors import ConfigError, CurationError, one_line
from pipeline.ledger.table import LEDGER_FILE, ledger_of, show_ledger
from pipeline.paths import PROJECT_ROOT
from pipeline.presets import DEFAULT_PRESET, PRESETS, load_config
from pipeline.report.page_file import page_path
from pipeline.stages import CATALOGUE, STAGES, open_store
from pipeline.store.store import Run

_INTERRUPTED = 130
"""Exit status that shells give a program ended by Ctrl-C: 128 + SIGINT."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0 done, 2 a user error, 130 interrupted."""
    options, started = _parser().parse_args(arguments), datetime.now(UTC)
    try:
        _end_alike()
        config = load_config(options.preset, options.set, options.seed)
        run = open_store(PROJECT_ROOT / options.store).run(options.run or run_name(options.preset))
        cached = materialize(options.preset, config, run, options.select)
        _print_summary(run, cached)
        _leave_page(run, cached)
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        sys.stderr.write("interrupted: what is finished is kept, go on with the same command\n")
        return _INTERRUPTED
    except (dg.Failure, CurationError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    _print_costs(run, cached, started)
    return 0


def materialize(preset: str, config: Config, run: Run, select: str | None = None) -> dict[str, bool]:
    """Materialize assets in this process, by default all but optional ones; return which results still stood.

    Raises ConfigError for a selection that selects nothing, and what stages raise as Failure.
    """
    selection = _selection(config, select)
    stages = {spec.name: spec for spec in STAGES if not selection.isdisjoint(spec.artifacts)}
    job = build_definitions(preset, config, run.name).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        asset_selection=[asset_key(run.name, name) for name in sorted(selection)],
        instance=_instance(),
        run_config={
            "ops": {name: {"config": getattr(config, spec.key).model_dump()} for name, spec in stages.items()},
            "resources": {
                "store": {"config": {"root": str(run.store.root)}},
                "model": {"config": config.model.model_dump()},
                "checks": {"config": config.checks.model_dump()},
            },
            "loggers": {"console": {"config": {}}},
        },
    )
    events = result.get_asset_materialization_events()
    materializations = [event.step_materialization_data.materialization for event in events]
    return {artifact_of(m.asset_key): bool(m.metadata["cached"].value) for m in materializations}


def _selection(config: Config, select: str | None) -> set[str]:
    """Return the artifacts that a selection means, which names them without the run."""
    if select is None:
        return {name for spec in STAGES if not spec.optional for name in spec.artifacts}
    graph = dg.Definitions(build_assets(STAGES, config, run=""), resources=resources(config)).resolve_asset_graph()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.BetaWarning)  # 1.13 warns of a parameter that it sets itself
            chosen = {key.to_user_string() for key in dg.AssetSelection.from_string(select).resolve(graph)}
    except dg.DagsterError as error:
        raise ConfigError(f"--select {select}: {one_line(error)}") from error
    if not chosen:
        raise ConfigError(f"--select {select} selects nothing: assets are {', '.join(CATALOGUE)}")
    return chosen


def _instance() -> dg.DagsterInstance | None:
    """Return the instance whose runs the UI shows, or none without DAGSTER_HOME: then the run leaves no record."""
    home = os.environ.get("DAGSTER_HOME")
    if home is None:
        return None
    Path(home).mkdir(parents=True, exist_ok=True)
    return dg.DagsterInstance.get()


def _end_alike() -> None:
    """Make a closed terminal and a request to terminate what Ctrl-C is, so that no process is left behind."""
    for number in (signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup does
            signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))


def _print_summary(run: Run, cached: dict[str, bool]) -> None:
    if "evaluation" in cached:
        print(f"\n{run.require('evaluation').manifest.notes['table']}\n")
    if "causal_check" in cached:
        print(f"\n{run.require('causal_check').manifest.notes['verdict']}\n")
    for name in cached:
        state = "unchanged" if cached[name] else "computed"
        for table in () if "skipped" in run.require(name).manifest.notes else CATALOGUE[name]:
            print(f"{state:<10} {_shown(run.folder / name / f'{table}.parquet')}")
    if "evaluation" in cached:
        print(f"{'report':<10} {_shown(run.folder / 'evaluation' / 'report.md')}")


def _print_costs(run: Run, cached: dict[str, bool], started: datetime) -> None:
    if all(cached.values()):
        print("\nNothing changed: nothing was recomputed.")
        return
    print(f"{'ledger':<10} {_shown(run.folder / LEDGER_FILE)}")
    spent = ledger_of(run).filter(pl.col("run") == run.name, pl.col("started") >= started)
    print(f"\n{show_ledger(spent, {'spent this time': pl.lit(True)})}")


def _leave_page(run: Run, cached: dict[str, bool]) -> None:
    """Write the page of the run, unless the one that stands shows all that there is."""
    if not all(cached.values()) or not page_path(run).is_file():
        from pipeline.report.run_page import write_run_page  # loads the plot library

        write_run_page(run)
    print(f"{'page':<10} {_shown(page_path(run))}")


def _shown(path: Path) -> str:
    return str(path.relative_to(PROJECT_ROOT) if path.is_relative_to(PROJECT_ROOT) else path)


def _parser() -> argparse.ArgumentParser:
    presets = ", ".join(sorted(path.stem for path in PRESETS.glob("*.yaml")))
    optional = ", ".join(spec.name for spec in STAGES if spec.optional)
    parser = argparse.ArgumentParser(prog="python -m assets", description=__doc__)
    parser.add_argument("--preset", default=DEFAULT_PRESET, help=f"one of {presets}, or a YAML file (%(default)s)")
    parser.add_argument("--run", metavar="NAME", help="name of the run, under which its artifacts stand (the preset's)")
    parser.add_argument(
        "--store", metavar="FOLDER", default=STORE, help="folder that holds all artifacts and runs (%(default)s)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override one setting, e.g. rollouts.n_samples=8; repeatable; all keys: pipeline/*/config.py",
    )
    parser.add_argument("--seed", type=int, help="seed of every stage that draws at random")
    parser.add_argument(
        "--select",
        help=f"Dagster asset selection, e.g. '*curated_subset' for it and all before it (default: all but {optional})",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
