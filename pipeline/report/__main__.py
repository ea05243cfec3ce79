"""Write the page of a run or of a study: one HTML file that needs no network and no other file.

A run that is not finished gives a page of what there is, and says what is not there. All but the costs is determined by
the artifacts: the same run gives the same page. Exit status: 0 done, 2 there is nothing to show.
"""

import argparse
import sys
from pathlib import Path

from pipeline.errors import CurationError
from pipeline.paths import PROJECT_ROOT, resolve_path
from pipeline.report.page_file import PAGE_FILE, page_path
from pipeline.report.run_page import N_ROWS, run_page, write_page
from pipeline.report.study_page import study_page
from pipeline.stages import open_store


def main() -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.report", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", metavar="NAME", help="name of a run of the store")
    what.add_argument("--study", type=Path, metavar="FOLDER", help="folder of a study's results (docs/studies/<name>)")
    parser.add_argument(
        "--store", default="data", metavar="FOLDER", help="folder that holds store and runs (%(default)s)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"the page ({PAGE_FILE} of the run or study)")
    told = "searchable rows of each kind at most; the page says how many it leaves out (%(default)s)"
    parser.add_argument("--rows", type=int, default=N_ROWS, metavar="N", help=told)
    options = parser.parse_args()
    try:
        if options.study:
            folder = resolve_path(str(options.study))
            page, path = study_page(folder, options.rows), options.out or folder / PAGE_FILE
        else:
            run = open_store(PROJECT_ROOT / options.store).run(options.run)
            page, path = run_page(run, options.rows), options.out or page_path(run)
        write_page(page, path)
    except CurationError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"{path} ({path.stat().st_size / 1e6:.1f} MB)\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
