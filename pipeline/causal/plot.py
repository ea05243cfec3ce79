"""What people see of the causal check."""

from pipeline.plots import scatter
from pipeline.store.artifact import Artifact


def drops(causal_check: Artifact) -> bytes:
    """Return what silencing leading neurons costs a response against random ones, as PNG."""
    table = causal_check.read()
    axes = ("drop with random neurons silenced (nats)", "drop with leading neurons silenced (nats)")
    return scatter(table["drop_random"], table["drop_silenced"], "causal_check", *axes)
