"""Executables used by several threads and processes at once: right answers, flat memory."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from spawned import answer, rows

import aisc
from aisc.codegen.cpu import pool as pools
from aisc.ir import dtypes
from aisc.ir.arith.poly import symbol
from aisc.ir.diagnostics import ExecutionError
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.types import TensorType

W = np.random.default_rng(0).standard_normal((96, 80)).astype(np.float32)
STATM = Path("/proc/self/statm")


def product(threads: int = 2) -> aisc.Executable:
    """``relu(x @ W) @ W'`` over a symbolic batch: packed weights, an arena, parallel kernels."""
    b = GraphBuilder("product")
    x = b.input("x", TensorType((symbol("n"), 96), dtypes.f32))
    h = b.add("relu", (b.add("matmul", (x, b.constant(W, "w"))),))
    y = b.add("matmul", (h, b.constant(np.ascontiguousarray(W.T), "v")))
    return aisc.compile(b.finish([y]), threads=threads, cache=False)


def softmax(threads: int = 2) -> aisc.Executable:
    b = GraphBuilder("softmax")
    x = b.input("x", TensorType((symbol("n"), 96), dtypes.f32))
    y = b.add("softmax", (b.add("mul", (x, x)),), {"axis": 1})
    return aisc.compile(b.finish([y]), threads=threads, cache=False)


@pytest.fixture(scope="module")
def two() -> tuple[aisc.Executable, aisc.Executable]:
    return product(), softmax()


@pytest.fixture(scope="module")
def bundle(two: tuple[aisc.Executable, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "product.aisc"
    aisc.save(two[0], path)
    return path


def resident() -> int:
    """Bytes of memory in use by this process."""
    gc.collect()
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def at_once(count: int, work: Callable[[int], None]) -> None:
    """Run `work(k)` on `count` threads that start together; the first failure is raised."""
    gate = threading.Barrier(count)

    def run(k: int) -> None:
        gate.wait()
        work(k)

    with ThreadPoolExecutor(count) as pool:
        for done in [pool.submit(run, k) for k in range(count)]:
            done.result()


@pytest.mark.skipif(not STATM.exists(), reason="needs /proc")
def test_ten_thousand_calls(two: tuple[aisc.Executable, ...]) -> None:
    """Four threads, two executables, three sizes; each result compared, memory flat."""
    cases = [(e, rows(n, n)) for e in two for n in (1, 13, 200)]
    expected = [e(x).tobytes() for e, x in cases]

    def calls(count: int) -> Callable[[int], None]:
        def work(k: int) -> None:
            for i in range(count):
                at = (i * (k + 1) + k) % len(cases)
                run, x = cases[at]
                assert run(x).tobytes() == expected[at]

        return work

    at_once(4, calls(300))
    before = resident()
    at_once(4, calls(2500))
    assert resident() - before < 8 << 20


def test_each_call_has_an_arena_of_its_own(two: tuple[aisc.Executable, ...]) -> None:
    """As many workspaces as calls at once, at the most; none is lost by refused calls."""
    run = product()
    at_once(3, lambda k: [run(rows(k)) for _ in range(50)] and None)
    assert 1 <= len(run.idle) <= 3
    count = len(run.idle)
    for _ in range(10):
        with pytest.raises(ExecutionError):
            run(rows(0)[:, 1:])
    assert len(run.idle) == count


def test_errors_stay_with_their_call() -> None:
    b = GraphBuilder()
    x = b.input("x", TensorType((64,), dtypes.i32))
    y = b.input("y", TensorType((64,), dtypes.i32))
    run = aisc.compile(b.finish([b.add("div", (x, y))]), threads=2, cache=False)
    ones, zeros = np.ones(64, np.int32), np.zeros(64, np.int32)

    def work(k: int) -> None:
        for _ in range(300):
            if k % 2:
                assert run(ones, ones).sum() == 64
            else:
                with pytest.raises(ExecutionError):
                    run(ones, zeros)

    at_once(4, work)


def test_calls_while_others_are_compiled_opened_and_deleted(
    two: tuple[aisc.Executable, ...], bundle: Path
) -> None:
    x = rows(3)
    expected = two[0](x).tobytes()

    def work(k: int) -> None:
        for i in range(20):
            run = (two[0], aisc.load(bundle, threads=2), product() if i % 10 == 0 else two[0])[k]
            for _ in range(5):
                assert run(x).tobytes() == expected

    at_once(3, work)


@pytest.mark.skipif(not STATM.exists(), reason="needs /proc")
def test_deleting_frees_code_and_arenas(bundle: Path) -> None:
    x = rows(1, 20_000)

    def once() -> None:
        assert aisc.load(bundle, threads=2)(x).shape == (20_000, 96)

    for _ in range(3):
        once()
    before = resident()
    for _ in range(60):
        once()
    assert resident() - before < 16 << 20


def test_inputs_that_another_thread_changes() -> None:
    """Indices that are valid in one moment and not in the next: an answer or E502, no crash."""
    b = GraphBuilder()
    x = b.input("x", TensorType((9, 3), dtypes.f32))
    at = b.input("at", TensorType((4096,), dtypes.i64))
    graph = b.finish([b.add("gather", (x, at), {"axis": 0})])
    run = aisc.compile(graph, threads=2, cache=False)
    table = np.arange(27, dtype=np.float32).reshape(9, 3)
    indices = np.zeros(4096, np.int64)
    codes: set[str] = set()
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            indices[::7] = 1 << 40
            indices[::7] = 5

    other = threading.Thread(target=change)
    other.start()
    try:
        for _ in range(500):
            try:
                got = run(table, indices)
            except ExecutionError as fault:
                codes.update(fault.codes)
            else:
                assert np.isin(got, table).all()
    finally:
        stop.set()
        other.join()
    assert codes <= {"E502"}


# -- processes -------------------------------------------------------------------------------


def in_child(work: Callable[[], bytes]) -> bytes:
    """What `work` gives in a forked child; the child is killed when it hangs."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, work())
        finally:
            os._exit(0)
    os.close(write)
    timer = threading.Timer(60, os.kill, (child, 9))
    timer.start()
    with os.fdopen(read, "rb") as f:
        got = f.read()
    timer.cancel()
    os.waitpid(child, 0)
    return got


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forks_while_other_threads_call(two: tuple[aisc.Executable, ...], bundle: Path) -> None:
    """Whatever the other threads hold when the process forks, children call, open and compile."""
    x = rows(4)
    expected = two[0](x).tobytes()
    stop = threading.Event()

    def busy(k: int) -> None:
        while not stop.is_set():
            (two[0] if k else aisc.load(bundle, threads=2))(x)

    others = [threading.Thread(target=busy, args=(k,)) for k in range(2)]
    for o in others:
        o.start()
    try:
        for k in range(12):
            work = (
                lambda: two[0](x).tobytes(),
                lambda: aisc.load(bundle, threads=2)(x).tobytes(),
                lambda: product()(x).tobytes(),
            )[k % 3]
            assert in_child(work) == expected
    finally:
        stop.set()
        for o in others:
            o.join()


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_of_a_child(two: tuple[aisc.Executable, ...]) -> None:
    x = rows(5)
    expected = two[0](x).tobytes()
    assert in_child(lambda: in_child(lambda: two[0](x).tobytes())) == expected
    assert two[0](x).tobytes() == expected


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_multiprocessing(two: tuple[aisc.Executable, ...], bundle: Path, method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    expected = [two[0](rows(seed)).tobytes() for seed in range(4)]
    with multiprocessing.get_context(method).Pool(2) as pool:
        got = pool.starmap_async(answer, [(str(bundle), seed) for seed in range(4)]).get(120)
    assert got == expected


def test_a_process_may_end_while_a_thread_calls(bundle: Path) -> None:
    code = (
        "import aisc, numpy, threading, time\n"
        f"run = aisc.load({str(bundle)!r}, threads=2)\n"
        "x = numpy.ones((500, 96), numpy.float32)\n"
        "def work():\n"
        "    while True: run(x)\n"
        "for _ in range(3): threading.Thread(target=work, daemon=True).start()\n"
        "time.sleep(0.2)\n"
    )
    for _ in range(3):
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (result.returncode, result.stderr) == (0, "")


def test_executables_are_not_pickled(two: tuple[aisc.Executable, ...]) -> None:
    for copy_of in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"aisc\.save"):
            copy_of(two[0])


def test_numbers_of_threads(bundle: Path, two: tuple[aisc.Executable, ...]) -> None:
    x = rows(6)
    expected = two[0](x).tobytes()
    assert all(aisc.load(bundle, threads=t)(x).tobytes() == expected for t in (1, 2, 3, 7, 16))
    for wrong in (0, -1, pools.MAX_THREADS + 1, 10**12):
        with pytest.raises(ExecutionError) as caught:
            aisc.load(bundle, threads=wrong)
        assert caught.value.codes == ("E501",)
