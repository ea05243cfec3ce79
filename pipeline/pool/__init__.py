"""Stage ``raw_pool``: sources of questions read, cleaned, checked, and parted from their gold answers."""
