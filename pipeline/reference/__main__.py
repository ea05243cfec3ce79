"""Make everything that ``data/reference`` ships, or another world: pool, tests, tokenizer and model.

``make reference-model`` runs it; it takes about ten minutes on one CPU core.
"""

import argparse
import logging
from pathlib import Path

from pipeline.reference.make import SHIPPED, make_world
from pipeline.reference.model import ReferenceModelConfig


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.reference", description=__doc__)
    parser.add_argument("--out", type=Path, default=SHIPPED, help="folder, without a model yet (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the world and of training (%(default)s)")
    parser.add_argument("--steps", type=int, default=ReferenceModelConfig().steps, help="optimizer steps (%(default)s)")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    make_world(options.seed, options.out, ReferenceModelConfig(seed=options.seed, steps=options.steps))


if __name__ == "__main__":
    main()
