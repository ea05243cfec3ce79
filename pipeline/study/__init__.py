"""Studies: arms on worlds under seeds, compared question by question; ``python -m pipeline.study FILE``."""
