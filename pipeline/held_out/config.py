"""Settings of the stage ``tests``."""

from pydantic import Field

from pipeline.section import Section


class TestsConfig(Section):
    """Held-out questions that models are compared on."""

    in_domain_path: str = "data/reference/in_domain_test.jsonl"
    """Held-out questions of the pool's domain, named as in pool.decontaminate_against and in the pool's columns; a test
    split off the pool takes their place."""
    out_of_domain_path: str | None = "data/reference/out_of_domain_test.jsonl"
    """Questions of other domains, likewise; none skips them."""
    limit: int | None = Field(default=None, ge=1)
    """Use at most so many questions of each test; none uses all."""
