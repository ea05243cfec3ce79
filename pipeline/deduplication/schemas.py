"""Tables of this room's stage."""

import pyarrow as pa

from pipeline.pool.schemas import RAW_POOL
from pipeline.table import ID, TEXT, table

POOL = pa.schema(
    [
        *RAW_POOL,
        *table(
            group=(TEXT, False, "smallest id among the near-duplicates of the question, its own included"),
            family=(TEXT, False, "stem family: hash of the template's words"),
            template=(TEXT, False, "name of the family: its first stem with the fillings left out"),
        ),
    ]
)

DROPPED = table(
    id=ID,
    reason=(
        TEXT,
        False,
        "contaminated, near_duplicate, in_domain_test, out_of_domain_test, or tied_to_test (of one group with a test)",
    ),
    twin=(TEXT, True, "id of the keeper (in pool or test) or of the evaluation question; null if held out"),
    similarity=(pa.float64(), True, "weighted Jaccard index with the keeper, or share of the evaluation question"),
    source=(TEXT, False, "file name and line or row number, from 1"),
)

CONTAMINATION = table(
    id=ID,
    evaluation_id=(TEXT, False, "id of the evaluation question, or that of a test split off, it repeats"),
    evaluation_source=(TEXT, False, "its file name and line or row number, from 1"),
    score=(pa.float64(), False, "share of its n-grams, stem and options, weighted by rarity, in the pool question"),
    stem_overlap=(pa.float64(), False, "the same of the stem, words of its template left out"),
    option_overlap=(pa.float64(), True, "the same of the options; null where there are none, or none that say much"),
    shared_text=(TEXT, False, "longest run of words that both stems hold, shortened"),
)
