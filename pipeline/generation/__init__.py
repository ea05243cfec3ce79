"""Generation backends (``generator.Generator``): token ids in; tokens, log-probabilities and finish reasons out."""
