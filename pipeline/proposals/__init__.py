"""Stage ``proposed_questions``: the model writes questions for its next pool."""
