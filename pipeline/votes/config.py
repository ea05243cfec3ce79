"""Settings of this room's stage."""

from pydantic import Field

from pipeline.section import Section


class PseudoLabelsConfig(Section):
    """Majority vote."""

    min_votes: int = Field(default=1, ge=1)
    """Fewer extracted answers than this leave the question without a pseudo-label."""
