"""Where the page of a run stands; imports nothing heavy."""

from pathlib import Path
from typing import Final

from pipeline.store.store import Run

PAGE_FILE: Final = "report.html"


def page_path(run: Run) -> Path:
    """Return where the page of a run stands, or would."""
    return run.folder / PAGE_FILE
