"""A split into pool and tests that neither a stem family nor a group of near-duplicates crosses."""

from enum import StrEnum

import polars as pl

from pipeline.deduplication.config import PoolConfig
from pipeline.deduplication.near_duplicates import smallest_members
from pipeline.errors import ConfigError
from pipeline.registry import suggest
from pipeline.seeding import derive_seed


class Fate(StrEnum):
    """Where a question of the raw pool goes: into the pool, or out of it for a reason."""

    POOL = "pool"
    CONTAMINATED = "contaminated"
    """Nowhere: it stands in an evaluation set or in a test."""
    NEAR_DUPLICATE = "near_duplicate"
    """Nowhere: its keeper goes on in its place, be it into the pool or into a test."""
    IN_DOMAIN_TEST = "in_domain_test"
    OUT_OF_DOMAIN_TEST = "out_of_domain_test"
    TIED = "tied_to_test"
    """Nowhere: it belongs to the pool's domains but is of one group with a question of the out-of-domain test."""


def split(questions: pl.DataFrame, config: PoolConfig) -> pl.DataFrame:
    """Return ``id`` and ``fate`` of every question (columns id, domain, group and family), sorted by id.

    The out-of-domain test is whole domains. The in-domain test is drawn from the rest by whole groups, in an order that
    depends on ``split_seed`` and the ids alone, as many as fit into the share asked for. Raises ConfigError for a
    domain that no question has, and when no group is small enough for the share.
    """
    questions = questions.sort("id")
    _check_domains(questions["domain"], config)
    rows = questions.select(
        "id",
        held=pl.col("domain").is_in(config.out_of_domain),
        component=_components(questions),
    ).with_columns(tied=pl.col("held").any().over("component"))
    rest = rows.filter(~pl.col("tied")).group_by("component").agg(pl.col("id").min(), pl.len())
    drawn = _draw(rest, config)
    fate = (
        pl.when("held")
        .then(pl.lit(Fate.OUT_OF_DOMAIN_TEST))
        .when("tied")
        .then(pl.lit(Fate.TIED))
        .when(pl.col("component").is_in(drawn))
        .then(pl.lit(Fate.IN_DOMAIN_TEST))
        .otherwise(pl.lit(Fate.POOL))
    )
    return rows.select("id", fate=fate)


def _components(questions: pl.DataFrame) -> pl.Series:
    """Return for each question the row of the first one that groups and families connect it to."""
    rows = questions.with_row_index("row")
    links = [rows.select("row", first=pl.col("row").min().over(column)) for column in ("group", "family")]
    return pl.Series(smallest_members(pl.concat(links), questions.height))


def _draw(components: pl.DataFrame, config: PoolConfig) -> list[int]:
    """Return the components (columns component, id and len) of the in-domain test."""
    free = round(config.in_domain_share * int(components["len"].sum()))
    drawn = []
    for component, _, size in sorted(
        components.iter_rows(), key=lambda row: derive_seed(config.split_seed, "split", row[1])
    ):
        if size <= free:
            drawn.append(component)
            free -= size
    if config.in_domain_share and not drawn:
        raise ConfigError(
            f"pool.in_domain_share = {config.in_domain_share}: no stem family is small enough for a test of {free} "
            "questions that no family crosses: raise the share, or set it to 0 and give a test of your own"
        )
    return drawn


def _check_domains(domains: pl.Series, config: PoolConfig) -> None:
    known = sorted(set(domains))
    for domain in config.out_of_domain:
        if domain not in known:
            meant = suggest(domain, filter(None, known))
            raise ConfigError(f"pool.out_of_domain: no question has the domain '{domain}'{meant}")
