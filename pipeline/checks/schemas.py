"""Table of the verdicts of a run."""

import pyarrow as pa

from pipeline.table import TEXT, table

CHECKS = table(
    stage=(TEXT, False, "stage whose result was judged"),
    check=(TEXT, False, "what was judged"),
    state=(TEXT, False, "passed, failed, or nothing to judge"),
    severity=(TEXT, False, "error or warning: what a failure means"),
    blocking=(pa.bool_(), False, "whether nothing after the stage runs when it fails"),
    measured=(pa.float64(), True, "figure that was judged; null where it is not one figure"),
    limit=(pa.float64(), True, "what the figure was held against"),
    message=(TEXT, False, "what was found, and when it fails what to do"),
    fingerprint=(TEXT, False, "of the result"),
)
