"""Stage ``context_beliefs``: what the model answers with the teacher's context, against what it answers without.

It comes before the selection, whose rules ``belief_shift`` and ``confident_shift`` read it, so contexts are built here
for the whole pool; nothing is sampled unless ``context_beliefs.n_samples`` says so.
"""
