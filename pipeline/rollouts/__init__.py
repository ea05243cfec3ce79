"""Stages 2 and 3, ``rollouts`` and ``pseudo_labels``: sample responses, extract their answers, vote.

``sampler`` generates in batches, ``seeded`` draws the tokens, ``option_tokens`` reads the probabilities of the options,
``extract`` finds the stated answer in a response, ``vote`` turns the answers of a question into its pseudo-label.
"""
