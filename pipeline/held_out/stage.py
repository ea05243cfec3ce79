"""Declaration of the stage ``tests``."""

from typing import Final

from pipeline.held_out.config import SplitOff, TestsConfig
from pipeline.pool.config import AnsweredLayout
from pipeline.pool.schemas import GOLD_LABELS, RAW_POOL
from pipeline.stage import Companion, StageSpec

TESTS_STAGE: Final = StageSpec(
    name="tests",
    section=TestsConfig,
    description="Held-out questions of both tests; refused, before anything is trained, where they stand in the pool.",
    group="evaluation",
    tables={"in_domain": RAW_POOL, "out_of_domain": RAW_POOL},
    companions={
        "test_labels": Companion(
            {"in_domain": GOLD_LABELS, "out_of_domain": GOLD_LABELS},
            "Gold answers of the tests that are read from files; only evaluation reads them.",
            plot="pipeline.pool.plot:right_options",
        )
    },
    run="pipeline.held_out.run:run",
    inputs=("pool",),
    reads={"raw_pool": AnsweredLayout, "pool": SplitOff},
    sources="pipeline.held_out.run:sources",
    plot="pipeline.held_out.plot:domains",
)
