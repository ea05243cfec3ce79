"""Stage ``answers``: what each sampled response states."""
