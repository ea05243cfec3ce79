"""Declaration of the stage ``raw_pool``."""

from typing import Final

from pipeline.pool.config import RawPoolConfig
from pipeline.pool.schemas import GOLD_LABELS, QUARANTINE, RAW_POOL
from pipeline.stage import Companion, StageSpec

RAW_POOL_STAGE: Final = StageSpec(
    name="raw_pool",
    section=RawPoolConfig,
    description="Unlabelled questions, normalised to one record.",
    group="curation",
    tables={"raw_pool": RAW_POOL},
    companions={
        "gold_labels": Companion(
            {"gold_labels": GOLD_LABELS},
            "Gold answers where the source has them; only evaluation and the ceiling read them.",
            plot="pipeline.pool.plot:right_options",
        ),
        "quarantine": Companion(
            {"quarantine": QUARANTINE}, "Refused rows with reasons.", plot="pipeline.pool.plot:refusal_reasons"
        ),
    },
    run="pipeline.pool.run:run",
    sources="pipeline.pool.run:sources",
    plot="pipeline.pool.plot:question_lengths",
)
