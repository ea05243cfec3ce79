"""Real tasks: lm-evaluation-harness on a run's models, ``python -m pipeline.harness --help``; the extra ``harness``."""
