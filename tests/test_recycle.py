"""Results in recycled memory: what is held is never written again, what is dropped comes back."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import aisc
from aisc.codegen.run import recycle
from aisc.codegen.run.recycle import MAX_BLOCKS, MAX_BYTES, SMALL, Recycler
from aisc.ir import dtypes
from aisc.ir.arith.poly import symbol
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.types import TensorType

F32 = np.dtype(np.float32)
N = 1 << 18  # a megabyte


def negative() -> aisc.Executable:
    b = GraphBuilder()
    x = b.input("x", TensorType((symbol("n"),), dtypes.f32))
    return aisc.compile(b.finish([b.add("neg", (x,))]), threads=1, cache=False)


@pytest.fixture(scope="module")
def run() -> aisc.Executable:
    return negative()


def full(value: float, n: int = N) -> np.ndarray:
    return np.full(n, value, np.float32)


def at(a: np.ndarray) -> int:
    return int(a.ctypes.data)


def test_what_is_dropped_comes_back(run: aisc.Executable) -> None:
    first = run(full(1))
    where = at(first)
    second = run(full(2))
    assert at(second) != where
    del first
    third = run(full(3))
    assert at(third) == where
    assert (second == -2).all()
    assert (third == -3).all()


def test_what_is_kept_never_changes(run: aisc.Executable) -> None:
    kept = [run(full(k)) for k in range(5)]
    for k in range(5, 40):
        run(full(k))
    assert all((y == -k).all() for k, y in enumerate(kept))
    assert len({at(y) for y in kept}) == 5


HOLDERS: dict[str, Callable[[np.ndarray], Any]] = {
    "slice": lambda y: y[3:7],
    "view of a view": lambda y: y[100:].reshape(2, -1)[1:].view(np.int32),
    "base": lambda y: y.base,
    "array of the base": lambda y: y.base.view(np.ndarray)[8:],
    "memoryview": memoryview,
    "DLPack": lambda y: y.__dlpack__(),
    "of DLPack": np.from_dlpack,
    "frombuffer": lambda y: np.frombuffer(y, np.uint8, 64),
    "iterator": lambda y: iter(y),
}


@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS)
def test_whatever_refers_to_a_result_keeps_it(
    run: aisc.Executable, holder: Callable[[np.ndarray], Any]
) -> None:
    y = run(full(7))
    where, held = at(y), holder(y)
    del y
    gc.collect()
    others = [run(full(8)) for _ in range(3)]
    assert where not in map(at, others)
    del held
    gc.collect()
    others += [run(full(9)) for _ in range(MAX_BLOCKS)]
    assert where in map(at, others)


def test_nothing_leads_past_the_lease(run: aisc.Executable) -> None:
    y = run(full(1))
    assert y.base is not None
    assert y.base.base is None
    assert y.flags.writeable
    assert y.ctypes.data % 64 == 0
    y.flags.writeable = False
    y.flags.writeable = True
    with pytest.raises(ValueError, match="own its data"):
        y.resize(2 * N)


def test_waiting_blocks_are_bounded() -> None:
    r = Recycler()
    arrays = [r.array((SMALL + k * SMALL,), np.dtype(np.uint8)) for k in range(3 * MAX_BLOCKS)]
    assert r.sizes == []
    del arrays
    assert len(r.sizes) == MAX_BLOCKS
    arrays = [r.array((MAX_BYTES // 4,), np.dtype(np.uint8)) for _ in range(6)]
    del arrays
    assert MAX_BYTES // 2 <= sum(r.sizes) <= MAX_BYTES
    assert max(r.sizes) >= MAX_BYTES // 4


@pytest.mark.parametrize("size", [0, 1, SMALL - 1, MAX_BYTES + 1])
def test_small_and_huge_results_are_not_kept(size: int) -> None:
    r = Recycler()
    y = r.array((size,), np.dtype(np.uint8))
    assert y.shape == (size,)
    del y
    assert r.sizes == []


@pytest.mark.parametrize("size", [SMALL, SMALL + 1, 100_000, (1 << 17) - 1, 1 << 17, 999_999])
def test_a_block_is_large_enough_and_little_larger(size: int) -> None:
    capacity = recycle._capacity(size)
    assert size + 63 <= capacity <= size * 1.15
    r = Recycler()
    y = r.array((size,), np.dtype(np.uint8))
    assert at(y) + size <= at(y.base) + capacity


def test_blocks_die_with_the_executable() -> None:
    run = negative()
    kept, dropped = run(full(1)), run(full(2))
    recycler = run.results
    del dropped
    assert len(recycler.sizes) == 1
    del recycler, run
    gc.collect()
    assert (kept == -1).all()
    del kept  # there is nowhere to go back to


def test_failed_calls_give_their_memory_back() -> None:
    b = GraphBuilder()
    x, y = (b.input(name, TensorType((N,), dtypes.i32)) for name in "xy")
    run = aisc.compile(b.finish([b.add("div", (x, y))]), threads=1, cache=False)
    zeros = np.zeros(N, np.int32)
    for _ in range(3):
        with pytest.raises(aisc.ExecutionError):
            run(zeros, zeros)
    gc.collect()
    assert len(run.results.sizes) == 1


def test_threads_never_share_a_result(run: aisc.Executable) -> None:
    gate, wrong = threading.Barrier(4), []

    def work(k: int) -> None:
        gate.wait()
        held: list[tuple[float, np.ndarray]] = []
        for i in range(120):
            value = float(1000 * k + i)
            held.append((value, run(full(value))))
            if len(held) > 3:
                held.pop(i % 3)
            wrong.extend(v for v, y in held if y[0] != -v or y[-1] != -v or y[N // 2] != -v)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []
    assert len(run.results.sizes) <= MAX_BLOCKS


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_recycles_for_itself(run: aisc.Executable) -> None:
    kept = run(full(1))
    run(full(2))
    child = os.fork()
    if child == 0:
        ok = all((run(full(k)) == -k).all() for k in range(5)) and (kept == -1).all()
        os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert (run(full(3)) == -3).all()
    assert (kept == -1).all()


def test_results_may_outlive_everything() -> None:
    """Arrays in globals, in cycles and in a finalizer at the end of the interpreter."""
    code = """
import numpy as np, aisc
from aisc.codegen.run.recycle import Recycler
r = Recycler()
a = r.array((1 << 20,), np.dtype(np.uint8))
cycle = [r.array((1 << 20,), np.dtype(np.uint8))]
cycle.append(cycle)
class Last:
    def __init__(self): self.y = r.array((1 << 20,), np.dtype(np.uint8))
    def __del__(self): self.y[:] = 1
last = Last()
last.me = last
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
