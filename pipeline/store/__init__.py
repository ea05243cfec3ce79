"""Artifacts by content, and the runs that name them."""
