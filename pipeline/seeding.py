"""Seeds that depend on what is drawn, never on when or beside what it is drawn."""

import hashlib


def derive_seed(*parts: str | int) -> int:
    """Return a 64-bit seed from a run seed and the identity of a draw, e.g. ``(seed, question id, sample)``."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big")
