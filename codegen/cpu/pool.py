"""The process's thread pool: one per process, started on first use, again after ``fork``."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from aisc.codegen.cpu.backend import runtime_object
from aisc.codegen.cpu.runtime import pool_bytes
from aisc.codegen.llvm.engine import Linked
from aisc.ir.diagnostics import execution_error
from aisc.ir.target import Target

_HEADER = 64  # the pool's size stands in the eight bytes before the pool


class Pool:
    """`size` threads, the caller's being one of them; used by one call at a time."""

    def __init__(self, target: Target, size: int) -> None:
        self.size = size
        self.lock = threading.Lock()
        self._linked = Linked(target, [runtime_object(target)], ["aisc_pool_start"])
        memory = ctypes.create_string_buffer(_HEADER * 2 + pool_bytes(size))
        self._memory = memory
        base = (ctypes.addressof(memory) + _HEADER + 63) // 64 * 64
        self.address = base
        ctypes.c_int64.from_address(base - 8).value = size
        start = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64)(
            self._linked.addresses["aisc_pool_start"]
        )
        status = start(base, size)
        if status != 0:
            raise execution_error("E502", f"{size} threads cannot be started", os.strerror(status))


_pools: list[Pool] = []
_guard = threading.Lock()


def _after_fork() -> None:
    """Threads do not survive a fork: the child starts a pool of its own. The old memory is kept
    (its workers are gone, but a lock in it may be held)."""
    global _guard
    _abandoned.extend(_pools)
    _pools.clear()
    _guard = threading.Lock()


_abandoned: list[Pool] = []
os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def borrowed(target: Target, threads: int) -> Iterator[int]:
    """Address of a pool with at least `threads` threads for the time of one call; 0 when the call
    must run on its own thread because the pool is in use."""
    if threads <= 1:
        yield 0
        return
    with _guard:
        pool = next((p for p in _pools if p.size >= threads), None)
        if pool is None:
            pool = Pool(target, threads)
            _pools.append(pool)
    if not pool.lock.acquire(blocking=False):
        yield 0
        return
    try:
        yield pool.address
    finally:
        pool.lock.release()
