"""Files mapped into memory to be read: weights of models, compiled models.

Memory of a mapping is that of the system's cache of files: it counts for a process from when a page
is touched until the process gives it back, and is read again from the file when it is touched
again. So whoever goes through weights once gives back what lies behind.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
LARGE_BYTES = 1 << 20  # of a part of a file that is not worth a copy


class Mapping(mmap.mmap):
    """A whole file as memory that cannot be written."""


# Mappings of this process by (device, number, size): each shows what the file holds now, so that
# all who read a file can share one.
_mappings: WeakValueDictionary[tuple[int, int, int], Mapping] = WeakValueDictionary()


def mapped(path: Path | str) -> Bytes:
    """The bytes of a file, read when they are touched, as long as the array or a view of it lives.

    Raises ``OSError`` where the file cannot be read, ``ValueError`` where it is empty. The file may
    be removed or replaced meanwhile, but not cut short: the process would end with SIGBUS.
    """
    with open(path, "rb") as f:
        found = os.fstat(f.fileno())
        key = found.st_dev, found.st_ino, found.st_size
        mapping = _mappings.get(key)
        if mapping is None:
            mapping = Mapping(f.fileno(), found.st_size, access=mmap.ACCESS_READ)
            _mappings[key] = mapping
    return np.frombuffer(mapping, np.uint8)


def part_of(data: Bytes) -> Bytes:
    """A part of a file for somebody who keeps it: where it lies when it is large, else a copy,
    which is aligned and does not change with the file."""
    return data if data.nbytes >= LARGE_BYTES else data.copy()


def is_mapped(array: NDArray[np.generic]) -> bool:
    """Whether the elements of an array lie in a mapping of :func:`mapped`."""
    return _mapping_of(array) is not None


def give_back(array: NDArray[np.generic]) -> None:
    """Let the process no longer hold the pages of `array` if it is a view of a mapped file; the
    contents stay what they are. The pages at its ends go too."""
    mapping = _mapping_of(array)
    if mapping is None or not array.nbytes or not hasattr(mmap, "MADV_DONTNEED"):
        return
    begin = np.frombuffer(mapping, np.uint8).__array_interface__["data"][0]
    low, high = _bounds(array)
    start = (low - begin) // mmap.PAGESIZE * mmap.PAGESIZE
    # A mapping is shared and never written, so that others only read its pages again.
    mapping.madvise(mmap.MADV_DONTNEED, start, min(high - begin, len(mapping)) - start)


def _bounds(array: NDArray[np.generic]) -> tuple[int, int]:
    """Where the elements of an array begin and end in memory."""
    start: int = array.__array_interface__["data"][0]
    reach = [(n - 1) * step for n, step in zip(array.shape, array.strides, strict=True)]
    back, ahead = sum(r for r in reach if r < 0), sum(r for r in reach if r > 0)
    return start + back, start + ahead + array.itemsize


def _mapping_of(array: NDArray[np.generic]) -> Mapping | None:
    base: object = array
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    return base if isinstance(base, Mapping) else None
