"""Rounds: curation and distillation again and again, each round with the model of the one before."""
