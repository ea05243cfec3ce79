"""Stage ``neuron_scores``: which MLP neurons carry a model's own responses, and what their sets have in common.

``architecture`` finds the parts of a model, ``collector`` reads its activations, ``contribution`` and ``topk`` are the
mathematics, ``reading`` and ``batch`` the pass, ``score``, ``tables`` and ``shards`` the stage; ``mui`` and
``confounds`` measure what it stored.
"""
