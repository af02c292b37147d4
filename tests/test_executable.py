"""Executables: calling conventions, wrong arguments, concurrency, fork, determinism."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aisc
from aisc.codegen.cpu import pool as pools
from aisc.codegen.cpu.runtime import PAUSES, SPIN_BETWEEN, SPIN_INSIDE
from aisc.driver.api import lower, products, timed
from aisc.ir import dtypes
from aisc.ir.arith.poly import symbol
from aisc.ir.diagnostics import CompileError, ExecutionError
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph
from aisc.ir.graph.interpret import interpret
from aisc.ir.types import TensorType

K, N = 96, 80
W = np.random.default_rng(0).standard_normal((K, N)).astype(np.float32)


def mlp(batch: int | None = None) -> Graph:
    """``relu(x @ W)`` over a symbolic or fixed batch."""
    b = GraphBuilder("mlp")
    rows = symbol("n", 0) if batch is None else batch
    x = b.input("x", TensorType((rows, K), dtypes.f32))
    y = b.add("relu", (b.add("matmul", (x, b.constant(W, "w"))),), names=("y",))
    return b.finish([y], ["result"])


def rows(n: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, K)).astype(np.float32)


@pytest.fixture(scope="module")
def exe() -> aisc.Executable:
    return aisc.compile(mlp(), threads=2, cache=False)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 13, 14, 15, 100, 333])
def test_one_object_serves_all_batches(exe: aisc.Executable, n: int) -> None:
    x = rows(n)
    np.testing.assert_allclose(exe(x), np.maximum(x @ W, 0), rtol=1e-4, atol=1e-4)


def test_named_call_is_onnxruntimes(exe: aisc.Executable) -> None:
    x = rows(5)
    (by_name,) = exe.run(["result"], {"x": x})
    assert by_name.tobytes() == exe(x).tobytes()
    for names, feeds in ((None, {}), (None, {"x": x, "z": x}), (["nix"], {"x": x})):
        with pytest.raises(ExecutionError) as caught:
            exe.run(names, feeds)
        assert caught.value.codes == ("E501",)


@pytest.mark.parametrize(
    "bad",
    [rows(3).astype(np.float64), rows(3)[0], rows(3)[:, :-1], np.zeros((3, K), np.int32)],
    ids=["dtype", "rank", "shape", "integers"],
)
def test_wrong_inputs_are_refused(exe: aisc.Executable, bad: np.ndarray) -> None:
    with pytest.raises(ExecutionError) as caught:
        exe(bad)
    assert caught.value.codes == ("E501",)
    assert "expected" in str(caught.value)


def test_wrong_number_of_inputs(exe: aisc.Executable) -> None:
    with pytest.raises(ExecutionError):
        exe()


def test_views_and_read_only_inputs(exe: aisc.Executable) -> None:
    wide = np.random.default_rng(2).standard_normal((8, 2 * K)).astype(np.float32)
    view = wide[::2, ::2]
    expected = exe(np.ascontiguousarray(view))
    assert exe(view).tobytes() == expected.tobytes()
    frozen = view.copy()
    frozen.flags.writeable = False
    assert exe(frozen).tobytes() == expected.tobytes()
    backwards = np.ascontiguousarray(view)[::-1]
    assert exe(backwards).tobytes() == exe(backwards.copy()).tobytes()


def test_unaligned_inputs(exe: aisc.Executable) -> None:
    raw = np.zeros(5 * K * 4 + 1, np.uint8)
    x = raw[1:].view(np.float32).reshape(5, K)
    x[...] = rows(5)
    assert exe(x).tobytes() == exe(rows(5)).tobytes()


def test_out_is_written_in_place(exe: aisc.Executable) -> None:
    x, out = rows(6), np.full((6, N), np.nan, np.float32)
    assert exe(x, out=[out]) is out
    assert out.tobytes() == exe(x).tobytes()
    for wrong in (out[:5], out.astype(np.float64), out.T.copy().T):
        with pytest.raises(ExecutionError):
            exe(x, out=[wrong])
    frozen = out.copy()
    frozen.flags.writeable = False
    with pytest.raises(ExecutionError):
        exe(x, out=[frozen])


def test_out_must_not_overlap_an_input() -> None:
    b = GraphBuilder()
    x = b.input("x", TensorType((16,), dtypes.f32))
    run = aisc.compile(b.finish([b.add("relu", (x,))]), cache=False)
    data = np.linspace(-1, 1, 16, dtype=np.float32)
    with pytest.raises(ExecutionError):
        run(data, out=[data])


def test_dlpack_without_copies(exe: aisc.Executable) -> None:
    class Tensor:
        """A DLPack producer that is no numpy array."""

        def __init__(self, array: np.ndarray) -> None:
            self.array = array

        def __dlpack__(self, **kwargs: object) -> object:
            return self.array.__dlpack__()

        def __dlpack_device__(self) -> tuple[int, int]:
            return self.array.__dlpack_device__()

    x = rows(4)
    y = exe(Tensor(x))
    assert y.tobytes() == exe(x).tobytes()
    assert np.from_dlpack(y).ctypes.data == y.ctypes.data
    assert y.ctypes.data % 64 == 0


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    x = rows(700)
    results = [aisc.compile(mlp(), threads=t, cache=False)(x).tobytes() for t in (1, 2, 3, 5)]
    assert len(set(results)) == 1


def test_concurrent_calls_are_right(exe: aisc.Executable) -> None:
    other = aisc.compile(mlp(40), threads=2, cache=False)
    xs = [rows(40, seed) for seed in range(8)]
    expected = [exe(x).tobytes() for x in xs]

    def call(k: int) -> bool:
        run = exe if k % 2 else other
        return bool(run(xs[k % 8]).tobytes() == expected[k % 8])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(call, range(400)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_pool_starts_again_after_fork(exe: aisc.Executable) -> None:
    x = rows(300)
    expected = exe(x).tobytes()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, b"y" if exe(x).tobytes() == expected else b"n")
        os._exit(0)
    os.close(write)
    timer = threading.Timer(20, os.kill, (child, 9))
    timer.start()
    answer = os.read(read, 1)
    timer.cancel()
    os.waitpid(child, 0)
    assert answer == b"y"


def test_workers_stay_awake_where_calls_follow_each_other(exe: aisc.Executable) -> None:
    """A call right after another runs on threads that still wait for it, one after a rest alone:
    work of this size is not worth waking anybody. The bits are the same."""
    x = rows(300)

    def after(pause: float) -> tuple[int, bytes]:
        time.sleep(pause)
        result = exe(x).tobytes()
        pool = pools.acquire(exe.image.runtime, 2)
        assert pool is not None
        pool.lock.release()
        return ctypes.c_int64.from_address(pool.address + PAUSES).value, result

    spins, alone = after(0.01)
    assert spins == SPIN_BETWEEN
    seen = [after(0.0) for _ in range(2000)]
    assert SPIN_INSIDE in {spins for spins, _ in seen}
    assert {result for _, result in seen} == {alone}
    assert after(0.01) == (SPIN_BETWEEN, alone)


def test_passive_threads_never_spin_for_long(
    exe: aisc.Executable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bits are those of active ones; a worker waits for a moment only, however soon the next
    call comes. The way of waiting can be chosen when a model is compiled or opened, or later."""
    x = rows(300)
    alone = exe(x).tobytes()
    other = aisc.compile(mlp(), threads=2, wait="passive", cache=False)
    assert (exe.wait, other.wait) == ("active", "passive")
    for _ in range(300):
        assert other(x).tobytes() == alone
        pool = pools.acquire(other.image.runtime, 2, passive=True)
        assert pool is not None
        pool.lock.release()
        assert ctypes.c_int64.from_address(pool.address + PAUSES).value == SPIN_BETWEEN
    active = pools.acquire(exe.image.runtime, 2)
    assert active is not None
    active.lock.release()
    assert active is not pool
    out = np.empty_like(exe(x))
    assert other.bind(x, out=out)().tobytes() == alone
    other.save(tmp_path / "m.aisc")
    assert aisc.load(tmp_path / "m.aisc", wait="passive").wait == "passive"
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    assert aisc.load(tmp_path / "m.aisc").wait == "passive"
    monkeypatch.setenv("AISC_WAIT_POLICY", "active")
    opened = aisc.load(tmp_path / "m.aisc")
    assert opened.wait == "active"
    with pytest.raises(aisc.ExecutionError, match="lazy") as caught:
        opened.wait = "lazy"  # type: ignore[assignment]
    assert caught.value.codes == ("E501",)


def test_compilation_is_deterministic() -> None:
    texts = [aisc.lower(mlp(), to) for to in ("llvm", "asm") for _ in range(2)]
    assert texts[0] == texts[1]
    assert texts[2] == texts[3]


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_every_level_gives_the_same_answer(level: int) -> None:
    x = rows(9)
    run = aisc.compile(mlp(), level=level, threads=1, cache=False)
    np.testing.assert_allclose(run(x), np.maximum(x @ W, 0), rtol=1e-4, atol=1e-4)


def test_steps_are_announced_in_order() -> None:
    _, made = products(mlp(), verify=True)
    expected = ["specialize", "canonicalize", "legalize", "fuse", "lower"]
    assert [s for s in made if s in expected] == expected
    _, timer = timed(mlp(), use_cache=False)
    assert {"canonicalize", "lower", "plan", "load"} <= set(timer.seconds)


def test_bad_options_are_the_users_fault() -> None:
    for choice in ({"level": 7}, {"threads": 0}):
        with pytest.raises(CompileError) as caught:
            aisc.compile(mlp(), **choice)  # type: ignore[arg-type]
        assert caught.value.codes == ("E401",)
    with pytest.raises(CompileError):
        aisc.compile(mlp(), target="nix")


def scalars_and_views() -> Graph:
    """An output that is an input, one that is a view, one that is a constant, one twice."""
    b = GraphBuilder()
    x = b.input("x", TensorType((4, 6), dtypes.f32))
    flat = b.add("reshape", (x,), {"shape": (24,)})
    c = b.constant(np.float32([1, 2, 3]), "c")
    y = b.add("add", (x, b.constant(np.float32(2), "two")))
    return b.finish([x, flat, c, y, y], ["a", "b", "c", "d", "e"])


def test_outputs_of_every_kind() -> None:
    run = aisc.compile(scalars_and_views(), cache=False, threads=1)
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    a, b, c, d, e = run(x)
    assert np.array_equal(a, x)
    assert np.array_equal(b, x.reshape(-1))
    assert np.array_equal(c, [1, 2, 3])
    assert np.array_equal(d, x + 2)
    assert np.array_equal(e, x + 2)
    assert not np.may_share_memory(a, x)


def gather(n: int) -> aisc.Executable:
    b = GraphBuilder()
    x = b.input("x", TensorType((9, 3), dtypes.f32))
    at = b.input("at", TensorType((n,), dtypes.i64))
    return aisc.compile(b.finish([b.add("gather", (x, at), {"axis": 0})]), cache=False, threads=2)


@pytest.mark.parametrize("n", [1, 5, 16, 40])
def test_indices_out_of_range_are_reported(n: int) -> None:
    run = gather(n)
    x = np.arange(27, dtype=np.float32).reshape(9, 3)
    good = np.arange(n, dtype=np.int64) % 18 - 9
    assert np.array_equal(run(x, good), x[good])
    for bad in (9, -10, 1 << 62, -(1 << 63)):
        at = good.copy()
        at[n // 2] = bad
        with pytest.raises(ExecutionError) as caught:
            run(x, at)
        assert caught.value.codes == ("E502",)
        assert "index" in str(caught.value)
    assert np.array_equal(run(x, good), x[good])


@pytest.mark.parametrize("op", ["div", "mod"])
@pytest.mark.parametrize("n", [1, 7, 64])
def test_integer_division_by_zero_is_reported(op: str, n: int) -> None:
    b = GraphBuilder()
    x, y = (b.input(name, TensorType((n,), dtypes.i32)) for name in "xy")
    run = aisc.compile(b.finish([b.add(op, (x, y))]), cache=False, threads=2)
    lowest = np.full(n, -(2**31), np.int32)
    run(lowest, np.full(n, -1, np.int32))
    zeros = np.ones(n, np.int32)
    zeros[-1] = 0
    with pytest.raises(ExecutionError) as caught:
        run(lowest, zeros)
    assert caught.value.codes == ("E502",)


@pytest.mark.parametrize("rows", [4, "n"])
def test_a_long_entry_is_made_of_pieces(rows: int | str) -> None:
    """Of functions, with what changes on the way left in the entry itself."""
    b = GraphBuilder()
    size: Any = symbol(rows) if isinstance(rows, str) else rows
    x = v = b.input("x", TensorType((size, 8), dtypes.f32))
    for k in range(600):
        v = b.add("softmax", (v,), {"axis": k % 2})
    graph = b.finish([v, b.add("neg", (x,))])
    text = lower(graph, "llvm")
    assert isinstance(text, str)
    assert text.count("define internal void @aisc_entry_body_") >= 4
    assert "_body_" not in str(lower(mlp(), "llvm"))
    data = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    expected = interpret(graph, [data])
    for threads in (1, 2):
        exe = aisc.compile(graph, threads=threads, cache=False)
        got = exe(data)
        np.testing.assert_array_equal(got[1], expected[1])
        np.testing.assert_allclose(got[0], expected[0], 1e-5)
