"""Factual questions for a small general language model: a science pool, its test, and one of geography."""
