"""Stage ``neuron_scores``: which MLP neurons carry a model's own responses, and what their sets have in common.

``architecture`` finds the parts of a model, ``collector`` reads its activations, ``contribution`` and ``topk`` are the
mathematics, ``score`` is the stage; ``mui`` measures the sets that it stored.
"""
