"""The process's thread pools, one for each way of waiting: started on first use, again after
``fork``."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

from aisc.codegen.abi import CallFrame
from aisc.codegen.cpu.runtime import PASSIVE, pool_bytes
from aisc.codegen.llvm.link import Linked
from aisc.ir.diagnostics import execution_error

_HEADER = 64  # the pool's size stands in the eight bytes before the pool
MAX_THREADS = 1024


@cache
def _code(runtime: bytes) -> tuple[Linked, Any]:
    """The run time linked for the pool's own use, and its ``aisc_pool_start``. Never unloaded:
    workers execute it as long as the process lives, and children use it again after a fork."""
    linked = Linked([runtime], ["aisc_pool_start"])
    kind = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_size_t, ctypes.c_int64)
    return linked, kind(linked.addresses["aisc_pool_start"])


class Pool:
    """`size` threads, the caller's being one of them; used by one call at a time. They spin for
    each other for a while, unless they wait passively."""

    def __init__(self, runtime: bytes, size: int, passive: bool = False) -> None:
        self.size, self.passive = size, passive
        self.lock = threading.Lock()
        start = _code(_first(runtime))[1]
        memory = ctypes.create_string_buffer(_HEADER * 2 + pool_bytes(size))
        # Workers keep reading this memory, even when only some of them could be started.
        _memories.append(memory)
        self.address = (ctypes.addressof(memory) + _HEADER + 63) // 64 * 64
        ctypes.c_int64.from_address(self.address - 8).value = size
        ctypes.c_int64.from_address(self.address + PASSIVE).value = passive
        status = start(self.address, size)
        if status != 0:
            raise execution_error("E502", f"{size} threads cannot be started", os.strerror(status))


_memories: list[Any] = []
_runtimes: list[bytes] = []
_pools: list[Pool] = []
_guard = threading.Lock()


def _first(runtime: bytes) -> bytes:
    """The run time that pools use: the first one seen. All that this version of aisc makes or
    accepts from a bundle have the same layout."""
    if not _runtimes:
        _runtimes.append(runtime)
    return _runtimes[0]


def _after_fork() -> None:
    """Threads do not survive a fork: the child starts a pool of its own. Locks may be held by
    threads that are gone."""
    global _guard
    _pools.clear()
    _guard = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def acquire(runtime: bytes, threads: int, passive: bool = False) -> Pool | None:
    """A pool with at least `threads` threads for one call, which must release its lock; ``None``
    when the call must run on its own thread, because one is enough or the pool is in use."""
    if threads <= 1:
        return None
    for pool in _pools:
        if pool.size >= threads and pool.passive == passive:
            break
    else:
        pool = _started(runtime, threads, passive)
    return pool if pool.lock.acquire(False) else None


def entered(
    entry: Callable[[int], int], frame: CallFrame, at: int, runtime: bytes, threads: int,
    passive: bool = False,
) -> int:  # fmt: skip
    """The status of one run of an entry on the frame at address `at`, with a pool if
    :func:`acquire` gives one."""
    pool = acquire(runtime, threads, passive)
    if pool is None:
        frame.pool, frame.threads = 0, 1
        return entry(at)
    frame.pool, frame.threads = pool.address, threads
    try:
        return entry(at)
    finally:
        pool.lock.release()


def _started(runtime: bytes, threads: int, passive: bool) -> Pool:
    with _guard:
        found = (p for p in _pools if p.size >= threads and p.passive == passive)
        pool = next(found, None)
        if pool is None:
            pool = Pool(runtime, threads, passive)
            _pools.append(pool)
        return pool
