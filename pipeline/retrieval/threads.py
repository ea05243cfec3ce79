"""Compiled kernels on blocks of rows, side by side on Python's threads.

Numba's own parallel loops may share OpenMP with torch and then change how many threads torch computes with, hence the
last bits of every later stage in the process. Kernels that leave the interpreter lock alone need no more than this.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed

from numba import config


def over_blocks(compute: Callable[[int, int], object], n_rows: int, size: int) -> Iterator[int]:
    """Call ``compute(start, stop)`` for blocks of ``size`` rows and yield the rows of each, as they are finished.

    There are as many threads as Numba would use: ``NUMBA_NUM_THREADS``, or the processors of this process.
    """
    with ThreadPoolExecutor(config.NUMBA_NUM_THREADS) as pool:
        running = {}
        for start in range(0, n_rows, size):
            stop = min(start + size, n_rows)
            running[pool.submit(compute, start, stop)] = stop - start
        for done in as_completed(running):
            done.result()
            yield running[done]
