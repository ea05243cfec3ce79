"""Stage ``pseudo_labels``: the majority answer of a question's rollouts."""
