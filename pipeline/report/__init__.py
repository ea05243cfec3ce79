"""Report pages: a run or a study from its first row to its evaluation, one HTML file; ``python -m pipeline.report``.

A page is blocks (``blocks``) that templates draw. What stands in it comes from artifacts: nothing is computed that a
stage computes.
"""
