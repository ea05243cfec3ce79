"""The distillation job: a program of its own, run as ``python -m training.distill``."""
