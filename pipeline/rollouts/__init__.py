"""Stages 2 and 3, ``rollouts`` and ``pseudo_labels``: sample responses, extract their answers, vote.

``sampler`` generates in batches, ``seeded`` draws the tokens, ``letters`` reads the probabilities of option letters,
``extract`` finds the stated answer in a response, ``vote`` turns the answers of a question into its pseudo-label.
"""
