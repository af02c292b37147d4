"""Transposes: tiles in registers give the right elements, on all sizes, types and both sides."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from cpu_machines import CPU

import aisc
from aisc.codegen.cpu.backend import CpuBackend
from aisc.codegen.llvm.function import FunctionEmitter
from aisc.codegen.llvm.link import Linked
from aisc.driver.api import resolve_target
from aisc.ir import dtypes
from aisc.ir.arith.poly import symbol
from aisc.ir.dtypes import DType
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.interpret import run_func
from aisc.ir.text.parser import parse_func
from aisc.ir.types import TensorType
from aisc.passes.graph.fuse import Fuse
from aisc.passes.lower.program import lower_graph
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.default import default_schedule
from aisc.passes.tensor.optimize import optimize

Array = np.ndarray
rng = np.random.default_rng(0)


def transpose(shape: tuple[int, ...], perm: tuple[int, ...], dtype: DType = dtypes.f32) -> Graph:
    b = GraphBuilder()
    x = b.input("x", TensorType(shape, dtype))
    return b.finish([b.add("transpose", (x,), {"perm": perm})])


def data(shape: tuple[int, ...], dtype: DType = dtypes.f32) -> Array:
    """Values that all differ where the type has so many."""
    count = np.arange(int(np.prod(shape))).reshape(shape)
    return (count % 2 if dtype.kind == "bool" else count).astype(dtype.numpy)


def scheduled(graph: Graph) -> Func:
    (kernel,) = lower_graph(Fuse(machines=CPU).run(graph)).kernels
    return optimize(default_schedule(kernel, Chooser(resolve_target("cpu"))).func)


SHAPES = [
    ((1, 32, 3, 16), (0, 2, 3, 1)),  # keys of attention
    ((2, 3, 5, 40), (0, 2, 3, 1)),  # channels to the end
    ((2, 5, 40, 3), (0, 3, 1, 2)),  # and back
    ((1, 2, 7, 19), (0, 2, 3, 1)),
    ((1, 4, 8, 16), (0, 2, 3, 1)),
    ((3, 16, 16), (0, 2, 1)),
    ((33, 47), (1, 0)),
    ((16, 17), (1, 0)),
    ((15, 64), (1, 0)),
    ((2, 40, 7, 7), (0, 2, 3, 1)),  # two axes as one
    ((2, 7, 7, 40), (0, 3, 1, 2)),
    ((20, 3, 18), (2, 1, 0)),
    ((5, 4, 3, 2), (3, 2, 1, 0)),
    ((1, 70, 1, 33), (3, 2, 1, 0)),
]


@pytest.mark.parametrize(("shape", "perm"), SHAPES, ids=lambda v: "x".join(map(str, v)))
@pytest.mark.parametrize("threads", [1, 2])
def test_sizes(shape: tuple[int, ...], perm: tuple[int, ...], threads: int) -> None:
    graph, x = transpose(shape, perm), data(shape)
    expected = np.ascontiguousarray(x.transpose(perm))
    run = aisc.compile(graph, threads=threads, cache=False)
    assert np.array_equal(run(x), expected)
    y = np.zeros_like(expected)
    run_func(scheduled(graph), [x, y])
    assert np.array_equal(y, expected)


@pytest.mark.parametrize("perm", [(0, 2, 3, 1), (0, 2, 1, 3), (3, 1, 2, 0), (0, 3, 2, 1)])
@pytest.mark.parametrize("threads", [1, 2])
def test_sizes_known_at_run_time(perm: tuple[int, ...], threads: int) -> None:
    b = GraphBuilder()
    n, m = symbol("n"), symbol("m")
    x = b.input("x", TensorType((n, m, 3, 24), dtypes.f32))
    graph = b.finish([b.add("transpose", (x,), {"perm": perm})])
    run = aisc.compile(graph, threads=threads, cache=False)
    for shape in ((0, 5), (1, 1), (2, 15), (1, 16), (17, 33), (40, 16), (64, 1)):
        a = data((*shape, 3, 24))
        assert np.array_equal(run(a), np.ascontiguousarray(a.transpose(perm)))


def test_tiles_of_sizes_known_at_run_time_do_not_gather() -> None:
    b = GraphBuilder()
    x = b.input("x", TensorType((1, symbol("n"), 12, 64), dtypes.f32))
    keys = b.finish([b.add("transpose", (x,), {"perm": (0, 2, 3, 1)})])
    assert "gather" not in FunctionEmitter(scheduled(keys)).emit()
    b = GraphBuilder()
    x = b.input("x", TensorType((12, 64, symbol("n")), dtypes.f32))
    back = b.finish([b.add("transpose", (x,), {"perm": (2, 0, 1)})])
    assert "gather" not in FunctionEmitter(scheduled(back)).emit()


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=str)
@pytest.mark.parametrize(
    ("shape", "perm"), [((35, 50), (1, 0)), ((3, 50), (1, 0)), ((50, 3), (1, 0))]
)
def test_types(dtype: DType, shape: tuple[int, ...], perm: tuple[int, ...]) -> None:
    x = data(shape, dtype)
    run = aisc.compile(transpose(shape, perm, dtype), threads=1, cache=False)
    assert np.array_equal(run(x), np.ascontiguousarray(x.transpose(perm)))


@pytest.mark.parametrize(
    ("shape", "perm", "shuffles"),
    [((32, 32), (1, 0), 64), ((3, 64), (1, 0), 6), ((64, 3), (1, 0), 6), ((64, 4), (1, 0), 12)],
)
def test_whole_tiles_neither_gather_nor_scatter(
    shape: tuple[int, ...], perm: tuple[int, ...], shuffles: int
) -> None:
    if resolve_target("cpu").vector_bits < 512:
        pytest.skip("counts are those of vectors of 16")
    text = FunctionEmitter(scheduled(transpose(shape, perm))).emit()
    assert "gather" not in text
    assert "scatter" not in text
    assert text.count("shufflevector") == shuffles


def test_other_operands_and_broadcasts_in_a_tile() -> None:
    b = GraphBuilder()
    x = b.input("x", TensorType((48, 40), dtypes.f32))
    z = b.input("z", TensorType((40, 48), dtypes.f32))
    r = b.input("r", TensorType((48,), dtypes.f32))
    t = b.add("transpose", (x,), {"perm": (1, 0)})
    y = b.add("relu", (b.add("add", (b.add("mul", (t, z)), r)),))
    run = aisc.compile(b.finish([y]), threads=1, cache=False)
    a, c, d = (rng.standard_normal(s, np.float32) for s in ((48, 40), (40, 48), 48))
    np.testing.assert_allclose(run(a, c, d), np.maximum(a.T * c + d, 0), rtol=1e-6, atol=1e-6)


def test_an_operand_that_may_be_the_result_is_not_read_ahead() -> None:
    """Loads of all turns stand before the first store only where they cannot meet it."""
    text = """
func @f(x: f32[16, 16] input alias "m", y: f32[16, 16] output alias "{}") target cpu {{
  unroll i in 0 .. 16 {{ vectorize j in 0 .. 16 {{ y[i, j] = x[j, i] }} }}
}}
"""
    apart, same = (FunctionEmitter(parse_func(text.format(name))).emit() for name in "om")
    assert "gather" in same
    assert "gather" not in apart


def test_a_sum_over_the_turns_of_a_tile_takes_its_loads_ahead() -> None:
    """What the turns add up is read in turn; only what is transposed is read before."""
    text = """
func @f(x: f32[16, 16] input, y: f32[16] output) target cpu {
  unroll i in 0 .. 16 { vectorize j in 0 .. 16 { y[j] = y[j] + x[j, i] } }
}
"""
    func = parse_func(text)
    assert "gather" not in FunctionEmitter(func).emit()
    backend = CpuBackend(resolve_target("cpu"))
    linked = Linked([backend.assemble(backend.emit((func,))).object], ["f"])
    x, y = data((16, 16)), np.ones(16, np.float32)
    kinds = [ctypes.c_void_p] * 2 + [ctypes.c_int64] * 2 + [ctypes.c_void_p]
    run = ctypes.CFUNCTYPE(None, *kinds)(linked.addresses["f"])
    run(x.ctypes.data, y.ctypes.data, 0, 1, None)
    assert np.array_equal(y, 1 + x.sum(1))


def test_a_load_under_a_condition_is_not_read_ahead() -> None:
    text = """
func @f(x: f32[16, 12] input, y: f32[16, 16] output) target cpu {
  unroll i in 0 .. 16 {
    vectorize j in 0 .. 16 { y[i, j] = select(i < 12, x[j, i], 0.0:f32) }
  }
}
"""
    assert "gather" in FunctionEmitter(parse_func(text)).emit()
