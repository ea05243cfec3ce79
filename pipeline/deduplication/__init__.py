"""From raw pool to pool: near-duplicates, stem families, contamination, and a split that no group crosses."""
