"""Where the work on shards is done: the seam behind which other executors may come."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

Piece = TypeVar("Piece")


class Executor(Protocol):
    """Does work on pieces that depend on one another in nothing; each stores its own result."""

    def map(self, work: Callable[[Piece], None], pieces: Sequence[Piece]) -> Iterator[Piece]:
        """Do the work on all pieces, yielding each one when it is done; an error of one ends the whole."""


class InProcess:
    """One piece after the other, in this process."""

    def map(self, work: Callable[[Piece], None], pieces: Sequence[Piece]) -> Iterator[Piece]:
        """See ``Executor``."""
        for piece in pieces:
            work(piece)
            yield piece
