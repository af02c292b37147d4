"""Python's cyclic garbage collector, asked less often while something is compiled.

A compiler makes many small objects that live until it ends and hardly any cycles: by default the
collector would walk over them some hundred times, which is a tenth of a small model's compilation.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ALLOCATIONS = 50_000  # between two passes over what is new; Python's own number is 700

_lock = threading.Lock()
_depth = 0
_before: tuple[int, int, int] = (0, 0, 0)


@contextmanager
def patient() -> Iterator[None]:
    """Collect rarely inside; what was set before holds again when the last thread has left."""
    global _depth, _before
    with _lock:
        if _depth == 0:
            _before = gc.get_threshold()
            if _before[0]:  # 0: the user has switched it off
                gc.set_threshold(max(ALLOCATIONS, _before[0]), *_before[1:])
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                gc.set_threshold(*_before)
