"""Ask finished runs: what happened to a question, and what differs between two runs. Nothing is computed anew.

``trace`` shows gold answers where the store has them, as people may see what curation and training must not.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from typing import Any

from pipeline.errors import CurationError
from pipeline.inspection.diff import diff
from pipeline.inspection.reading import open_run
from pipeline.inspection.text import show_trace
from pipeline.inspection.text_diff import show_diff
from pipeline.inspection.trace import trace
from pipeline.paths import PROJECT_ROOT
from pipeline.stages import open_store
from pipeline.store.store import Store


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0 done, 2 a user error."""
    options = _parser().parse_args(arguments)
    try:
        document, text = options.action(open_store(PROJECT_ROOT / options.store), options)
    except CurationError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"{json.dumps(_plain(document), ensure_ascii=False, indent=1)}\n" if options.json else text)
    return 0


def _trace(store: Store, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Tell all that happened to a row: of the pool, of a test, left out or refused.

    From its source to the vote, scores, selection, contexts and graded answers, and where else it is named.
    """
    found = trace(open_run(store, options.run), options.row)
    return found.document(), show_trace(found)


def _diff(store: Store, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Tell what differs between two runs: settings, code, inputs, rows, and figures with their paired difference."""
    found = diff(open_run(store, options.first), open_run(store, options.second))
    return found, show_diff(found)


def _plain(value: Any) -> Any:
    """Return a value as JSON knows it, which has no number for what is none."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline.inspection", description=__doc__)
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    for name, action in {"trace": _trace, "diff": _diff}.items():
        described = actions.add_parser(name, help=(action.__doc__ or "").splitlines()[0], description=action.__doc__)
        described.set_defaults(action=action)
        if name == "trace":
            described.add_argument("row", help="id, its beginning, or the row's place such as pool.jsonl:12")
            described.add_argument("--run", default="reference", help="name of the run (%(default)s)")
        else:
            described.add_argument("first", help="name of a run")
            described.add_argument("second", help="name of the run that is held against it")
        described.add_argument("--store", default="data", help="folder that holds store and runs (%(default)s)")
        described.add_argument("--json", action="store_true", help="as one JSON document, nothing cut")
    return parser


if __name__ == "__main__":
    sys.exit(main())
