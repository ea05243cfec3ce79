"""Stages of predictions: a model's responses to the held-out questions."""
