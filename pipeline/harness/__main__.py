"""Ask the models of a run tasks of lm-evaluation-harness, in and out of their domain: base model and every adapter.

Prints a table, leaves it in the folder of the run in the place of an earlier one, and makes the run's page again, which
then shows it. Tasks are names or patterns as ``lm_eval ls tasks`` shows them, or your own.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import polars as pl

from pipeline.errors import CurationError
from pipeline.evaluation.metrics import IN_DOMAIN, OUT_OF_DOMAIN
from pipeline.harness.ask import Asked, ask
from pipeline.harness.results import Results, keep_results
from pipeline.markdown import markdown_table
from pipeline.paths import PROJECT_ROOT
from pipeline.predictions.contenders import compared
from pipeline.report.run_page import write_run_page
from pipeline.stages import open_store

_KEY: Final = ("split", "task", "filter", "metric", "n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0 done, 2 a user error."""
    parser = _parser()
    options = parser.parse_args(arguments)
    tasks = {IN_DOMAIN: options.in_domain, OUT_OF_DOMAIN: options.out_of_domain}
    if not any(tasks.values()):
        parser.error("name tasks with --in-domain or --out-of-domain")
    asked = Asked(tasks, options.include_path, options.limit, options.batch_size, not options.plain)
    try:
        run = open_store(PROJECT_ROOT / options.store).run(options.run)
        rows = ask(run, asked)
        command = shlex.join(["python", "-m", "pipeline.harness", *(sys.argv[1:] if arguments is None else arguments)])
        path = keep_results(run, Results(rows, command))
        page = write_run_page(run)
    except CurationError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"{show(rows)}\n\n{path}\n{page}\n")
    return 0


def show(rows: pl.DataFrame) -> str:
    """Return rows of schema HARNESS as a Markdown table, models side by side."""
    shown: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows.to_dicts():
        key = tuple(str(row[name]) for name in _KEY)
        sign = "+" if compared(row["model"]) else ""
        error = "" if row["stderr"] is None else f" ({row['stderr']:.3f})"
        shown.setdefault(key, dict(zip(_KEY, key, strict=True)))[row["model"]] = f"{row['value']:{sign}.3f}{error}"
    table = pl.DataFrame(list(shown.values()), infer_schema_length=None).fill_null("-")
    return f"{markdown_table(table)}\n\nIn brackets standard errors; differences are paired by document."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline.harness", description=__doc__)
    parser.add_argument("--run", default="reference", help="name of the run (%(default)s)")
    parser.add_argument("--store", default="data", help="folder that holds store and runs (%(default)s)")
    for split in (IN_DOMAIN, OUT_OF_DOMAIN):
        words = split.replace("_", "-")
        parser.add_argument(
            f"--{words}", nargs="+", default=[], metavar="TASK", help=f"tasks {words.replace('-', ' ')}"
        )
    parser.add_argument(
        "--include-path", type=Path, metavar="FOLDER", help="your own task files (YAML); Python that they name is run"
    )
    parser.add_argument("--limit", type=int, help="documents of each task (all)")
    parser.add_argument("--batch-size", type=int, default=8, help="requests at a time (%(default)s)")
    parser.add_argument("--plain", action="store_true", help="without the model's chat template")
    return parser


if __name__ == "__main__":
    sys.exit(main())
