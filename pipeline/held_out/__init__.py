"""Held-out questions: ingested up front like the pool, gold answers apart."""
