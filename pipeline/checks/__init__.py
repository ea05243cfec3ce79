"""Checks of what stages leave: each a pure function from tables and figures to a verdict (``registry.CHECKS``)."""
