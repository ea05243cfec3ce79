"""Settings of this room's stage."""

from pydantic import Field

from pipeline.section import Section


class EvaluationConfig(Section):
    """Untouched, fine-tuned and distilled model on held-out questions; the only stage that reads gold labels."""

    in_domain_path: str = "data/reference/in_domain_test.jsonl"
    """Held-out questions of the pool's domain, named as in pool.decontaminate_against and in the pool's columns; a test
    split off the pool takes their place."""
    out_of_domain_path: str | None = "data/reference/out_of_domain_test.jsonl"
    """Questions of other domains, likewise; none skips them."""
    n_samples: int = Field(default=8, ge=1)
    """Samples per question: the k of Avg@k and Maj@k."""
    n_resamples: int = Field(default=2_000, ge=100)
    """Bootstrap resamples of questions."""
    confidence_level: float = Field(default=0.95, gt=0, lt=1)
    """Mass of the intervals."""
    limit: int | None = Field(default=None, ge=1)
    """Use at most so many questions of each test; none uses all."""
    seed: int = 0
    """Seed of sampling and bootstrap."""
