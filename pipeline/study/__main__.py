"""Run a study and write its tables, report and picture: arms on worlds under seeds, each cell a run of the stages.

Cells that stand are not made again, and what is equal between them is made once. Exit status: 0 done, 1 some cells
could not be made (the report names them), 2 the study cannot run, 130 interrupted.
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from pipeline.errors import CurationError
from pipeline.paths import resolve_path
from pipeline.study.config import Cell, StudyConfig, cells, command_of, read_study, results_of
from pipeline.study.results import write_results
from pipeline.study.run import answer_cells, configure, make_worlds


def main() -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.study", description=__doc__)
    parser.add_argument(
        "study", type=Path, help="YAML file: name, arms, seeds, worlds, against (pipeline/study/config.py)"
    )
    parser.add_argument("--out", type=Path, help="folder of the results (docs/studies/<name>)")
    parser.add_argument("--store", type=Path, default=Path("data/studies"), help="folder of all runs (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="cells side by side, one thread each (%(default)s)")
    options = parser.parse_args()
    try:
        study = read_study(options.study)
        out = options.out or results_of(study)
        return _run(study, resolve_path(options.store), out, options.jobs, command_of(options.study))
    except CurationError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: the same command goes on where it was\n")
        return 130


def _run(study: StudyConfig, root: Path, out: Path, n_jobs: int, command: str) -> int:
    for cell in cells(study):
        configure(study, cell, root)  # a misspelt setting is told before anything is made
    make_worlds(study.worlds, root)
    found: dict[Cell, Path | str] = {}
    with tqdm(total=len(cells(study)), unit="cell", desc=study.name) as progress:
        for cell, made in answer_cells(study, root, n_jobs):
            found[cell] = made
            progress.update()
    sys.stdout.write(write_results(study, root, found, out, command))
    return 1 if any(isinstance(made, str) for made in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
