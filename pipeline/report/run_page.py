"""The page of a run."""

from pathlib import Path
from typing import Final

from pipeline.errors import CurationError
from pipeline.report.beside import beside
from pipeline.report.blocks import Page
from pipeline.report.curation import curation
from pipeline.report.outcome import evaluation, headline, training, verdict
from pipeline.report.page import render
from pipeline.report.page_file import page_path
from pipeline.report.questions import explorers
from pipeline.report.real_tasks import real_tasks
from pipeline.report.record import checks, ledger, making
from pipeline.report.shown import Shown
from pipeline.store.store import Run

N_ROWS: Final = 2_000
"""Searchable rows of each kind in a page: about a megabyte of them."""


def run_page(run: Run, n_rows: int = N_ROWS) -> Page:
    """Return the page of a run, of what stages there are; raises CurationError for a run without any."""
    shown = Shown(run)
    if not shown.made():
        raise CurationError(f"{run.folder} holds no artifacts: make the run first, or name another with --run")
    evaluated = shown.find("evaluation")
    metrics = evaluated.read("metrics") if evaluated else None
    lift = shown.notes("teacher_lift").get("verdict", "")
    sections = [
        *curation(shown),
        training(shown),
        evaluation(shown),
        *real_tasks(shown),
        *explorers(shown, n_rows),
        beside(shown),
        ledger(shown),
        checks(shown),
        making(shown),
    ]
    subtitle = (
        "From the pool of questions to the evaluation: what came in, what was chosen and why, and what came of it."
    )
    summary = headline(metrics) if metrics is not None else []
    return Page(f"Run {run.name}", subtitle, verdict(metrics, lift), summary, sections)


def write_run_page(run: Run) -> Path:
    """Write the page of a run beside its links, and return where; raises as ``run_page`` and ``write_page`` do."""
    path = page_path(run)
    write_page(run_page(run), path)
    return path


def write_page(page: Page, path: Path) -> None:
    """Write a page in one go; raises CurationError where that cannot be done."""
    unfinished = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(render(page), encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise CurationError(f"{path} cannot be written ({error.strerror}): name another file with --out") from error
