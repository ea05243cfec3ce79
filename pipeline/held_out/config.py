"""Settings of the stage ``tests``, and those of the pool that it goes by."""

from pydantic import Field

from pipeline.section import Section


class SplitOff(Section):
    """Which tests are split off the pool."""

    in_domain_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the questions to hold out as in-domain test; 0 for none."""
    out_of_domain: list[str] = []
    """Domains to hold out whole as out-of-domain test."""


class TestsConfig(Section):
    """Held-out questions that models are compared on."""

    in_domain_path: str = "data/reference/in_domain_test.jsonl"
    """Held-out questions of the pool's domain, named as in pool.decontaminate_against and in the pool's columns; a test
    split off the pool takes their place."""
    out_of_domain_path: str | None = "data/reference/out_of_domain_test.jsonl"
    """Questions of other domains, likewise; none skips them."""
    limit: int | None = Field(default=None, ge=1)
    """Use at most so many questions of each test, drawn by their content; none uses all."""
