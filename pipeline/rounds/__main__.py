"""Curate and distil in rounds, each with the model of the last round that the drift gate promoted.

Rounds that were judged stand, whatever has changed since; one that was cut off goes on where it was. The table is
printed and stands with a picture in data/runs/NAME, as does the last promoted model (merged_model/model). Exit status:
0 done, 2 a user error, 130 interrupted.
"""

import argparse
import logging
import sys
from collections.abc import Sequence

from pipeline.errors import ConfigError, CurationError
from pipeline.paths import PROJECT_ROOT
from pipeline.presets import DEFAULT_PRESET, load_config
from pipeline.rounds.report import write_report
from pipeline.rounds.run import run_rounds
from pipeline.stages import open_store


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("pipeline.rounds").setLevel(logging.INFO)
    try:
        if options.rounds < 1:
            raise ConfigError(f"--rounds {options.rounds}: give the number of the last round to make, 1 or more")
        config = load_config(options.preset, options.set, options.seed)
        rounds = open_store(PROJECT_ROOT / options.store).run(options.run)
        run_rounds(config, rounds, options.rounds)
        report = write_report(config, rounds)
    except CurationError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: what is finished is kept, go on with the same command\n")
        return 130
    sys.stdout.write(f"{report}\n{rounds.folder}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline.rounds", description=__doc__)
    parser.add_argument("--preset", default=DEFAULT_PRESET, help="name of a preset, or a YAML file (%(default)s)")
    parser.add_argument("--run", metavar="NAME", default="rounds", help="name of the rounds (%(default)s)")
    parser.add_argument("--rounds", type=int, metavar="N", default=3, help="up to which number (%(default)s)")
    parser.add_argument("--store", metavar="FOLDER", default="data", help="folder of artifacts and runs (%(default)s)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override one setting; repeatable"
    )
    parser.add_argument("--seed", type=int, help="seed of every stage that draws at random")
    return parser


if __name__ == "__main__":
    sys.exit(main())
