"""Adapters are trained by a program of its own: the job that it gets, and what becomes of it."""

import subprocess
import sys

from pipeline.adapters.job import TrainingJob, write_job
from pipeline.artifacts import ArtifactStore
from pipeline.errors import TrainingError
from pipeline.section import Section
from pipeline.selection.config import CuratedSubsetConfig
from pipeline.stage import Outcome, Stage


def training_job(stage: Stage, kind: type[TrainingJob], **described: Section) -> Outcome | list[str]:
    """Return the stage's standing adapter, or write a job of a ``kind`` and return the command that runs it."""
    store, provenance = stage.store, stage.provenance()
    fingerprint = stage.fingerprint(provenance)
    if standing := store.current(stage.name, fingerprint):
        return Outcome(standing, cached=True)
    work_dir = store.root / f".{stage.name}.work"
    job = kind(
        artifact=stage.name,
        store_root=store.root,
        fingerprint=fingerprint,
        provenance=provenance,
        model=stage.model,
        settings=stage.section,
        curated_subset=CuratedSubsetConfig(**store.require("curated_subset").provenance["config"]),
        work_dir=work_dir,
        **described,
    )
    write_job(job, work_dir / "job.json")
    return [sys.executable, "-m", "training.run", "--job", str(work_dir / "job.json")]


def run_training(store: ArtifactStore, name: str, job: Outcome | list[str]) -> Outcome:
    """Run the training process of a job; raises TrainingError when it fails."""
    if isinstance(job, Outcome):
        return job
    code = subprocess.run(job, check=False).returncode  # noqa: S603  our own command
    if code:
        raise TrainingError(f"the training process ended with code {code}: its last lines above say why")
    return Outcome(store.require(name), cached=False)
