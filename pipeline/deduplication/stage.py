"""Declaration of the stage ``pool``."""

from typing import Final

from pipeline.deduplication.config import PoolConfig
from pipeline.deduplication.schemas import CONTAMINATION, DROPPED, POOL
from pipeline.pool.config import Layout
from pipeline.pool.schemas import RAW_POOL
from pipeline.stage import StageSpec

POOL_STAGE: Final = StageSpec(
    name="pool",
    section=PoolConfig,
    description="Questions without near-duplicates, contamination and held-out tests; what was dropped, and why.",
    group="curation",
    tables={
        "pool": POOL,
        "dropped": DROPPED,
        "contamination": CONTAMINATION,
        "in_domain_test": RAW_POOL,
        "out_of_domain_test": RAW_POOL,
    },
    run="pipeline.deduplication.run:run",
    inputs=("raw_pool",),
    reads={"raw_pool": Layout},
    sources="pipeline.deduplication.run:sources",
    plot="pipeline.deduplication.plot:fates",
)
