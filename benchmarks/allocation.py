"""Memory at its most within a block: counted over tensors, with or without contents, or read from the C library."""

import ctypes
import threading
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LivingBytes(TorchDispatchMode):
    """Adds up the memory of tensors that are made within the block and stand at the same time."""

    def __init__(self, there: Iterable[Tensor]) -> None:
        """Leave out the tensors ``there``, whose views are made within the block too."""
        super().__init__()
        self.now = self.peak = 0
        self._there = [tensor.untyped_storage() for tensor in there]
        self._living: dict[int, Any] = {storage._cdata: None for storage in self._there}

    def __torch_dispatch__(self, function: Any, _types: Any, arguments: Any = (), named: Any = None) -> Any:
        result = function(*arguments, **(named or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        self.peak = max(self.peak, self.now)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._living:
            self.now += size
            self._living[key] = weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self.now -= size
        del self._living[key]


class AllocatedBytes:
    """Reads what glibc's malloc has given out (mallinfo2(3)) every millisecond, in a thread."""

    class _Figures(ctypes.Structure):
        _fields_ = [
            (name, ctypes.c_size_t)
            for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
        ]

    def __init__(self) -> None:
        self._read = ctypes.CDLL("libc.so.6").mallinfo2
        self._read.restype = self._Figures
        self._before = self._now()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.peak = 0

    def __enter__(self) -> "AllocatedBytes":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _now(self) -> int:
        figures = self._read()
        return int(figures.uordblks + figures.hblkhd)

    def _watch(self) -> None:
        while not self._ended.wait(0.001):
            self.peak = max(self.peak, self._now() - self._before)
