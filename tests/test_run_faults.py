"""Faults in the middle of a run: reported, never a hang, and the next call is as good as any."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from cpu_machines import make_threads_free
from onnx_models import BOOL, I64, F, const, graph, model, node, value

import aisc
from aisc.codegen import abi, faults
from aisc.codegen.faults import Fault
from aisc.ir.diagnostics import ExecutionError
from aisc.ir.location import Loc
from aisc.ir.tensor import interpret

X = np.arange(12, dtype=np.float32).reshape(4, 3) - 5


@pytest.fixture(autouse=True)
def many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any work is enough for several threads."""
    make_threads_free(monkeypatch)


def loop(nodes: list[Any], kind: int, result: str, test: str = "") -> Any:
    """A body over one carried value ``h`` that gives `test` and `result`."""
    inputs = [value("i", I64, []), value("go", BOOL, []), value("h", kind)]
    more = [] if test else [node("Identity", "go", "flag")]
    return graph([*nodes, *more], inputs, [value(test or "flag", BOOL, []), value(result, kind)])


def chase() -> Any:
    """Follows indices in a table until one is at least 5; what is not found counts as 0."""
    nodes = [node("Gather", "table h", "h2"), node("Less", "h2 five", "less")]
    body = loop(nodes, I64, "h2", "less")
    inputs = [value("x", I64, []), value("table", I64, ["k"])]
    weight = const("five", np.array(5))
    return model([node("Loop", "_ _ x", "y", body=body)], inputs, [value("y", I64)], weight)


def sized() -> Any:
    """In turn k, a cube of edge ``edges[k]`` is made and summed."""
    nodes = [
        node("Gather", "edges i", "e"), node("Expand", "e three", "shape"),
        node("ConstantOfShape", "shape", "zeros"), node("Exp", "zeros", "ones"),
        node("ReduceSum", "ones", "total", keepdims=0), node("Neg", "ones", "minus"),
        node("ReduceSum", "minus", "less", keepdims=0), node("Add", "h total", "h1"),
        node("Sub", "h1 less", "h2"),
    ]  # fmt: skip
    step = node("Loop", "m _ x", "y", body=loop(nodes, F, "h2"))
    inputs = [value("x", F, ["n", 3]), value("edges", I64, ["k"]), value("m", I64, [])]
    return model([step], inputs, [value("y")], const("three", np.array([3])))


def numbers(*items: int) -> np.ndarray:
    return np.array(items, np.int64)


CHASE = ((np.array(0), numbers(1, 2, -9, 9)), (np.array(0), numbers(1, 2, 3, 9)), np.array(9))
SIZED = (
    (X, numbers(2, 3, 1 << 20, 1), np.array(4)),
    (X, numbers(2, 3, 1, 0), np.array(4)),
    X + 2 * (8 + 27 + 1 + 0),
)
FITS = ((X, numbers(2, -3), np.array(2)), SIZED[1], SIZED[2])  # a size below 0
CASES = {"a bad index": (chase, CHASE), "too much memory": (sized, SIZED), "a size": (sized, FITS)}


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("name", CASES)
def test_in_the_middle_of_a_loop(name: str, threads: int) -> None:
    """What a kernel did not compute may be the reason to end: the fault itself ends the loop."""
    make, (bad, good, want) = CASES[name]
    exe = aisc.compile(make(), threads=threads, cache=False)
    for _ in range(20):
        with pytest.raises(ExecutionError) as caught:
            exe(*bad)
        assert caught.value.codes == ("E502",)
        np.testing.assert_array_equal(exe(*good), want)


@pytest.mark.parametrize("name", CASES)
def test_beside_calls_that_succeed(name: str) -> None:
    make, (bad, good, want) = CASES[name]
    exe = aisc.compile(make(), threads=2, cache=False)
    gate = threading.Barrier(4)

    def work(k: int) -> None:
        gate.wait()
        for _ in range(100):
            if k % 2:
                np.testing.assert_array_equal(exe(*good), want)
            else:
                with pytest.raises(ExecutionError):
                    exe(*bad)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work, k) for k in range(4)]:
            done.result()


def test_the_host_fails_in_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [node("Unique", "h", "u"), node("ReduceMax", "u", "r", keepdims=0),
             node("Add", "h r", "h2")]  # fmt: skip
    step = node("Loop", "m _ x", "y", body=loop(nodes, F, "h2"))
    m = model([step], [value("x", F, ["n", 3]), value("m", I64, [])], [value("y")])
    exe = aisc.compile(m, threads=2, cache=False)
    want, right, calls = exe(X, np.array(3)), interpret.host_results, 0

    def broken(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise ValueError("no such luck")
        return right(*given)

    for _ in range(5):
        calls = 0
        with monkeypatch.context() as patch:
            patch.setattr(interpret, "host_results", broken)
            with pytest.raises(ExecutionError, match="failed"):
                exe(X, np.array(3))
        np.testing.assert_array_equal(exe(X, np.array(3)), want)


def test_sizes_that_were_refused_are_not_remembered() -> None:
    """Bytes of the first result wrap around to 0, which the next call really needs."""
    nodes = [
        node("ConstantOfShape", "s", "z0"), node("Exp", "z0", "z"),
        node("ReduceSum", "z a", "y", keepdims=0), node("Exp", "y", "w"),
    ]  # fmt: skip
    outputs = [value("z"), value("y"), value("w")]
    m = model(nodes, [value("s", I64, [3])], outputs, const("a", numbers(0, 1)))
    exe = aisc.compile(m, threads=1, cache=False)
    exe(numbers(1, 1, 1))
    with pytest.raises(ExecutionError):
        exe(numbers(1 << 31, 1 << 31, 4096))
    z, y, w = exe(numbers(0, 1, 4096))
    assert z.shape == (0, 1, 4096)
    np.testing.assert_array_equal(y, np.zeros(4096, np.float32))
    np.testing.assert_array_equal(w, np.ones(4096, np.float32))


@pytest.mark.parametrize("shape", [(0, 1 << 60), (1 << 60, 0), ((1 << 31) + 1, 0)])
def test_a_size_that_no_loop_should_count_to(shape: tuple[int, int]) -> None:
    m = model([node("ReduceSum", "x a", "y", keepdims=1)], [value("x", F, ["n", "k"])],
              [value("y")], const("a", numbers(0)))  # fmt: skip
    exe = aisc.compile(m, threads=2, cache=False)
    with pytest.raises(ExecutionError) as caught:
        exe(np.zeros(shape, np.float32))
    assert caught.value.codes == ("E501",)
    assert exe(X).shape == (1, 3)


def test_an_index_into_nothing_touches_no_memory() -> None:
    """Where an axis is empty there is no element to read or write instead of a wrong place."""
    updates, at = value("u", F, ["k", 40]), value("i", I64, ["k", 1])
    m = model([node("ScatterND", "x i u", "y")], [value("x", F, ["n", 40]), at, updates],
              [value("y")])  # fmt: skip
    exe = aisc.compile(m, threads=1, cache=False)
    around = np.full((9, 40), 7, np.float32)
    none, places = np.zeros((0, 40), np.float32), np.zeros((5, 1), np.int64)
    with pytest.raises(ExecutionError):
        exe(none, places, np.zeros((5, 40), np.float32), out=around[4:4])
    assert (around == 7).all()
    m = model([node("Gather", "x i", "y")], [value("x", F, ["n", 40]), at], [value("y")])
    with pytest.raises(ExecutionError):
        aisc.compile(m, threads=1, cache=False)(none, places)


@pytest.mark.parametrize("level", [0, 2])
@pytest.mark.parametrize("size", [0, 3])
def test_a_constant_index_is_tested(size: int, level: int) -> None:
    inputs, x = [value("x", F, ["n"])], np.zeros(size, np.float32)
    nodes = [node("Gather", "x five", "y"), node("ScatterND", "x at u", "z")]
    weights = [const("five", np.array(5)), const("at", np.array([[5]]))]
    weights.append(const("u", np.ones(1, np.float32)))
    for k, name in enumerate(("y", "z")):
        m = model(nodes[k : k + 1], inputs, [value(name)], *weights)
        exe = aisc.compile(m, threads=1, cache=False, level=level)
        with pytest.raises(ExecutionError):
            exe(x)
        exe(np.zeros(6, np.float32))


@pytest.mark.parametrize("count", range(5))
def test_a_table_of_faults_comes_back(count: int) -> None:
    """A message has a place for each value that a run can report, and no more."""
    table = [Fault("values" + " {}" * count, Loc("m.onnx", node="n"), ("a", "b=1"))]
    if count <= abi.VALUES:
        assert faults.from_json(faults.to_json(table)) == tuple(table)
    else:
        with pytest.raises(ValueError, match="no text of a fault"):
            faults.from_json(faults.to_json(table))
