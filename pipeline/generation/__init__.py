"""Generation: requests in; tokens, log-probabilities and finish reasons out."""
