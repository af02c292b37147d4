"""Memory of results, used again once the caller has dropped them.

Large arrays come from the operating system page by page, and each page is cleared when it is first
touched: for a result of megabytes that costs as much as a kernel. So an executable keeps the memory
of results that nobody holds any more and gives it to later calls, warm in cache::

    y = exe(x)      # memory A
    z = exe(x)      # memory B: y is still there
    del y
    w = exe(x)      # memory A again

What keeps memory in use is a :class:`_Lease`, the base of the array that the caller gets; views,
DLPack capsules and buffer exports hold the array, and so the lease.
"""

from __future__ import annotations

import math
import sys
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from aisc.codegen.arrays import ALIGNMENT, Array, address, aligned
from aisc.ir.diagnostics import execution_error

SMALL = 64 << 10  # bytes that the allocator of the C library keeps by itself
MAX_BLOCKS = 8
MAX_BYTES = 128 << 20


class _Memory(np.ndarray[Any, Any]):
    """Bytes that own their storage. A type of its own: numpy shortens chains of bases of one type,
    and so would pass over the lease."""

    __slots__ = ()


class _Lease(np.ndarray[Any, Any]):
    """The right to use a block; when it ends, the block goes back to where it came from."""

    __slots__ = ("block", "source")
    block: _Memory
    source: weakref.ref[Recycler]

    @property
    def base(self) -> None:
        """Nothing: a reference to the block itself would not keep it from being used again."""

    def __del__(self, at_exit: Callable[[], bool] = sys.is_finalizing) -> None:
        if at_exit():
            return
        source = getattr(self, "source", None)  # views of a lease have none
        recycler = None if source is None else source()
        if recycler is not None:
            recycler.keep(self.block)


class Recycler:
    """Blocks that no array uses: at most `MAX_BLOCKS`, and `MAX_BYTES` together.

    Safe for threads without a lock, which a finalizer must not wait for and a fork could leave
    closed: each access to the table is atomic, and who takes a block out of it owns the block.
    """

    __slots__ = ("__weakref__", "_free")

    def __init__(self) -> None:
        self._free: dict[int, _Memory] = {}  # in the order in which they became free

    @property
    def sizes(self) -> list[int]:
        """Bytes of the blocks that wait."""
        return [block.nbytes for block in tuple(self._free.values())]

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Like :func:`~aisc.codegen.arrays.aligned`, in memory that comes back when it is free."""
        count = math.prod(shape) * dtype.itemsize
        if not SMALL <= count <= MAX_BYTES:
            return aligned(shape, dtype)
        block = self._take(_capacity(count))
        lease = block.view(_Lease)
        lease.block, lease.source = block, weakref.ref(self)
        return np.ndarray(shape, dtype, lease, -address(block) % ALIGNMENT)

    def _take(self, size: int) -> _Memory:
        """A free block of this size, the one used last, or a new one."""
        for key, block in reversed(tuple(self._free.items())):
            if block.nbytes == size and self._free.pop(key, None) is not None:
                return block
        try:
            return _Memory(size, np.uint8)
        except MemoryError:
            raise execution_error("E502", f"{size} bytes cannot be allocated") from None

    def keep(self, block: _Memory) -> None:
        """Add a block whose lease has ended; the oldest ones leave where there are too many."""
        self._free[id(block)] = block
        while len(self._free) > MAX_BLOCKS or sum(self.sizes) > MAX_BYTES:
            oldest = next(iter(tuple(self._free)), None)
            if oldest is not None:
                self._free.pop(oldest, None)


def _capacity(count: int) -> int:
    """Bytes of the block for `count` bytes: one of eight sizes for each power of two, so that
    results of almost the same size share memory."""
    step = 1 << (count.bit_length() - 4)
    return -(-(count + ALIGNMENT) // step) * step
