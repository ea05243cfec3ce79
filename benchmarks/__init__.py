"""Measurements behind the figures that the documentation quotes; each prints JSON and stores it in ``results/``."""
