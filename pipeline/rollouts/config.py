"""Settings of this room's stage."""

from pydantic import Field

from pipeline.section import Section


class RolloutsConfig(Section):
    """Sampled responses per question (method: G = 5, temperature 0.6, top-p 0.95, 256 new tokens)."""

    n_samples: int = Field(default=5, ge=1)
    """Responses per question, G."""
    temperature: float = Field(default=0.6, gt=0)
    """Sampling temperature."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Nucleus mass."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Length limit of a response (tokens)."""
    permute_options: bool = False
    """Show the options in an order drawn per sample, so that letters carry no identity; off keeps the pool's."""
    batch_tokens: int = Field(default=16_384, ge=1)
    """Padded prompt plus response tokens of a batch; bounds memory, never results."""
    seed: int = 0
    """Seed of the draws, combined with question id and sample number."""
