"""Settings of how a token is drawn."""

from pydantic import Field

from pipeline.section import Section


class Sampling(Section):
    """How tokens are drawn, and how many at most (method: temperature 0.6, top-p 0.95, 256 new tokens)."""

    temperature: float = Field(default=0.6, gt=0)
    """Sampling temperature."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Nucleus mass."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Length limit of a response (tokens)."""
