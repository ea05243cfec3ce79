"""Dagster assets: thin wrappers of the stages."""
