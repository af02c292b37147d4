"""What kernels need at least: operations and bytes of lowered groups."""

from __future__ import annotations

import numpy as np
from cpu_machines import CPU

from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, symbol
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph, Value
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Load, math
from aisc.ir.tensor.func import Func, buffer
from aisc.ir.types import TensorType
from aisc.passes.analysis.roofline import flops, traffic
from aisc.passes.graph.fuse import Fuse
from aisc.passes.lower.program import lower_graph


def kernel(graph: Graph) -> Func:
    """The only kernel of a graph."""
    (func,) = lower_graph(Fuse(join=True, machines=CPU).run(graph)).kernels
    return func


def floats(b: GraphBuilder, name: str, *shape: Dim) -> Value:
    return b.input(name, TensorType(shape, dtypes.f32))


def test_a_product_with_epilogue() -> None:
    b = GraphBuilder()
    x, w, c = floats(b, "x", symbol("n"), 5), floats(b, "w", 5, 7), floats(b, "c", 7)
    y = b.add("relu", (b.add("add", (b.add("matmul", (x, w)), c)),))
    func = kernel(b.finish([y]))
    for n in (0, 1, 6):
        assert flops(func, {"n": n}) == n * 7 * (2 * 5 + 2)
        table = dict(zip((p.name for p in func.params), traffic(func, {"n": n}), strict=True))
        assert table["x"] == 4 * n * 5
        assert sum(table.values()) == 4 * (n * 5 + (35 + 7 if n else 0) + n * 7)


def test_a_convolution() -> None:
    b = GraphBuilder()
    x, w = floats(b, "x", 1, 3, 9, 9), floats(b, "w", 4, 3, 3, 3)
    attrs = {"strides": (2, 2), "pads": (1, 1, 1, 1), "dilations": (1, 1), "group": 1}
    func = kernel(b.finish([b.add("conv", (x, w), attrs)]))
    assert flops(func, {}) == 2 * 5 * 5 * 4 * 3 * 3 * 3
    assert traffic(func, {}) == [4 * 3 * 81, 4 * 108, 4 * 100]


def test_a_gather_touches_what_it_reads() -> None:
    b = GraphBuilder()
    table = b.constant(np.zeros((1000, 8), np.float32))
    at = b.input("at", TensorType((3,), dtypes.i64))
    func = kernel(b.finish([b.add("gather", (table, at), {"axis": 0})]))
    assert flops(func, {}) == 0
    assert sorted(traffic(func, {})) == [3 * 8, 4 * 3 * 8, 4 * 3 * 8]


def test_equal_expressions_are_computed_once() -> None:
    x, y = buffer("x", dtypes.f32, (10,), "input"), buffer("y", dtypes.f32, (10,), "output")
    cb = ComputeBuilder()
    cb.map(y, lambda i: math("exp", Load(x, (i,))) * math("exp", Load(x, (i,))))
    assert flops(cb.func("k", (x, y)), {}) == 10 * 2
