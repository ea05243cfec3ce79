"""Questions that people ask of finished runs: ``python -m pipeline.inspection --help``. No stage depends on it."""
