"""Stage ``curated_subset``: which pool questions become training questions.

A rule scores every question (``rule``: the interface; one file per rule), ``subset`` applies the budget and says for
each question why it was kept or not. A new rule is one file, one line in ``RULES`` and its name in
``pipeline.selection.config``.
"""
