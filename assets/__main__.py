"""Materialize the whole asset graph, or a part of it, and print what came of it.

Stages whose inputs, settings, model and code did not change are not recomputed.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
from dagster._core.errors import DagsterInvalidSubsetError

from assets import RUNS, build_definitions
from pipeline.artifacts import ArtifactStore
from pipeline.config import Config
from pipeline.errors import CurationError
from pipeline.paths import PROJECT_ROOT
from pipeline.presets import DEFAULT_PRESET, PRESETS, load_config
from pipeline.schemas import ARTIFACTS
from pipeline.stage import OPTIONAL


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0 done, 2 a user error, said in one line."""
    options = _parser().parse_args(arguments)
    store = ArtifactStore(PROJECT_ROOT / (options.store or f"{RUNS}/{Path(options.preset).stem}"))
    try:
        config = load_config(options.preset, options.set, options.seed)
        cached = materialize(options.preset, config, store, options.select)
    except CurationError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except DagsterInvalidSubsetError as error:
        sys.stderr.write(f"error: --select {options.select}: {' '.join(str(error).split())}\n")
        return 2
    _print_summary(store, cached)
    return 0


def materialize(preset: str, config: Config, store: ArtifactStore, select: str | None = None) -> dict[str, bool]:
    """Materialize assets in this process, by default all but optional ones; return which results still stood."""
    definitions = build_definitions(preset, config)
    chosen = (
        dg.AssetSelection.from_string(select)
        if select
        else dg.AssetSelection.all() - dg.AssetSelection.assets(*OPTIONAL)
    )
    selection = chosen.resolve(definitions.resolve_asset_graph())
    stages = {key.to_user_string() for key in selection} & set(Config.model_fields)
    result = definitions.resolve_job_def("all_stages").execute_in_process(
        asset_selection=sorted(selection),
        instance=_instance(),
        run_config={
            "ops": {name: {"config": getattr(config, name).model_dump()} for name in stages},
            "resources": {
                "store": {"config": {"root": str(store.root)}},
                "model": {"config": config.model.model_dump()},
            },
            "loggers": {"console": {"config": {}}},
        },
    )
    events = result.get_asset_materialization_events()
    materializations = [event.step_materialization_data.materialization for event in events]
    return {m.asset_key.to_user_string(): bool(m.metadata["cached"].value) for m in materializations}


def _instance() -> dg.DagsterInstance | None:
    """Return the instance whose runs the UI shows, or none without DAGSTER_HOME: then the run leaves no record."""
    home = os.environ.get("DAGSTER_HOME")
    if home is None:
        return None
    Path(home).mkdir(parents=True, exist_ok=True)
    return dg.DagsterInstance.get()


def _print_summary(store: ArtifactStore, cached: dict[str, bool]) -> None:
    evaluation = store.manifest("evaluation")
    if evaluation is not None and "evaluation" in cached:
        print(f"\n{evaluation.notes['table']}\n")
    if "causal_check" in cached:
        print(f"\n{store.require('causal_check').notes['verdict']}\n")
    for name in cached:
        state = "unchanged" if cached[name] else "computed"
        for table in ARTIFACTS[name]:
            print(f"{state:<10} {_shown(store.path(name, table))}")
    if "evaluation" in cached:
        print(f"{'report':<10} {_shown(store.root / 'evaluation' / 'report.md')}")
    if all(cached.values()):
        print("\nNothing changed: nothing was recomputed.")


def _shown(path: Path) -> str:
    return str(path.relative_to(PROJECT_ROOT) if path.is_relative_to(PROJECT_ROOT) else path)


def _parser() -> argparse.ArgumentParser:
    presets = ", ".join(sorted(path.stem for path in PRESETS.glob("*.yaml")))
    parser = argparse.ArgumentParser(prog="python -m assets", description=__doc__)
    parser.add_argument("--preset", default=DEFAULT_PRESET, help=f"one of {presets}, or a YAML file (%(default)s)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override one setting, e.g. rollouts.n_samples=8; repeatable; all keys: pipeline/*config.py",
    )
    parser.add_argument("--seed", type=int, help="seed of every stage that draws at random")
    parser.add_argument(
        "--select",
        help="Dagster asset selection, e.g. '*curated_subset' for it and all before it "
        f"(default: all but {', '.join(OPTIONAL)})",
    )
    parser.add_argument("--store", help=f"folder of the artifacts ({RUNS}/<preset>)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
