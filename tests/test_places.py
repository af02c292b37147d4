"""Concats and slices that move nothing: parts are made where the result lies, and read with
strides; every level computes the same, compiled code to the bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cpu_machines import CPU

import aisc
from aisc.ir import dtypes
from aisc.ir.arith.poly import floordiv, symbol
from aisc.ir.dtypes import DType
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph, Value
from aisc.ir.graph.interpret import interpret
from aisc.ir.node import walk
from aisc.ir.tensor.func import Buffer, Program, buffer
from aisc.ir.tensor.interpret import run_program
from aisc.ir.tensor.stmt import Alloc, CallKernel
from aisc.ir.tensor.verify import verify_program
from aisc.ir.text.parser import blobs_of, parse_program
from aisc.ir.text.printer import print_program
from aisc.ir.types import TensorType
from aisc.passes.analysis.places import reshaped
from aisc.passes.graph.fuse import Fuse
from aisc.passes.lower.program import lower_graph
from aisc.passes.plan.overlap import may_overlap

f32 = dtypes.f32
RNG = np.random.default_rng(0)
n = symbol("n", 1, 64)


class Net(GraphBuilder):
    """A builder with short words."""

    def x(self, *shape: Any, name: str = "x", dtype: DType = f32) -> Value:
        return self.input(name, TensorType(shape, dtype))

    def concat(self, *parts: Value, axis: int = -1) -> Value:
        return self.add("concat", list(parts), {"axis": axis})

    def dense(self, x: Value, outputs: int) -> Value:
        """A contraction and a map after it."""
        w = RNG.integers(-3, 4, (x.type.shape[-1], outputs)).astype(np.float32)
        return self.add("relu", [self.add("matmul", [x, self.constant(w)])])

    def cut(self, x: Value, axis: int, start: Any, end: Any) -> Value:
        starts, ends = [0] * x.type.rank, list(x.type.shape)
        starts[axis], ends[axis] = start, end
        steps = (1,) * x.type.rank
        return self.add(
            "slice", [x], {"starts": tuple(starts), "ends": tuple(ends), "steps": steps}
        )


def lowered(graph: Graph) -> Program:
    program = lower_graph(Fuse(machines=CPU).run(graph))
    verify_program(program, "lowered")
    text = print_program(program)
    assert parse_program(text, blobs_of(program)) == program
    return program


def calls(p: Program) -> list[str]:
    return [c.kernel.split("_", 1)[1] for c in walk(p.entry.body) if isinstance(c, CallKernel)]


def views(p: Program) -> list[Buffer]:
    found = [a.buffer for a in walk(p.entry.body) if isinstance(a, Alloc)]
    return [b for b in found if b.base not in ("", b.name)]


def check(graph: Graph, **sizes: int) -> None:
    """The graph, its program and its code agree to the bit: sums of small integers are exact."""
    inputs = []
    for v in graph.inputs:
        shape = [d if isinstance(d, int) else sizes[str(d)] for d in v.type.shape]
        inputs.append(RNG.integers(-4, 5, shape).astype(v.type.dtype.numpy))
    expected = interpret(graph, inputs)
    found = [run_program(lowered(graph), inputs, nthreads=3)]
    for threads in (1, 3):
        made: Any = aisc.compile(graph, threads=threads, cache=False)(*inputs)
        found.append(made if isinstance(made, list | tuple) else [made])
    for results in found:
        for a, b in zip(expected, results, strict=True):
            np.testing.assert_array_equal(a, b)


def chain(rows: Any = 2, axis: int = -1) -> Graph:
    """Each layer reads all that was made before."""
    g = Net("chain")
    y = g.dense(g.x(rows, 6, 16), 32)
    for _ in range(3):
        y = g.concat(y, g.dense(y, 32), axis=axis)
    return g.finish([g.dense(y, 8)])


def test_concats_nest_in_one_buffer() -> None:
    p = lowered(chain())
    assert "concat" not in "".join(calls(p))
    roots = [
        b for b in walk(p.entry.body) if isinstance(b, Alloc) and b.buffer.base == b.buffer.name
    ]
    assert len(roots) == 1 and roots[0].buffer.shape == (2, 6, 128)
    assert {b.strides for b in views(p)} == {(6 * 128, 128, 1)}
    assert sorted(b.offset for b in views(p)) == [0, 0, 0, 128, 256, 384]


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_symbolic_rows(rows: int) -> None:
    assert "concat" not in "".join(calls(lowered(chain(n))))
    check(chain(n), n=rows)


def test_equal_kernels_are_one() -> None:
    g = Net("equal")
    x = g.x(2, 4, 16)
    w = g.constant(RNG.integers(-3, 4, (16, 16)).astype(np.float32))
    parts = [g.add("matmul", [g.add(op, [x]), w]) for op in ("relu", "neg", "abs")]
    p = lowered(g.finish([g.dense(g.concat(*parts), 4)]))
    assert (
        len({k for k in calls(p) if k == "matmul"})
        == 1
        == sum("matmul" in k.name and "relu" not in k.name for k in p.kernels)
    )


def flat() -> Graph:
    """Concats that begin with the same parts."""
    g = Net("flat")
    parts = [g.dense(g.x(2, 3, 16), 16)]
    for _ in range(3):
        y = g.concat(*parts) if len(parts) > 1 else parts[0]
        parts.append(g.dense(y, 16))
    return g.finish([g.dense(g.concat(*parts), 16)])


def leftover() -> Graph:
    """Inputs and constants are copied, all of them by one kernel; so is what is there twice."""
    g = Net("leftover")
    x = g.x(2, 3, 16)
    y = g.dense(x, 32)
    c = g.constant(np.arange(96, dtype=np.float32).reshape(2, 3, 16))
    return g.finish([g.dense(g.concat(x, y, c, y, x), 5), g.dense(y, 5)])


def as_output() -> Graph:
    """A concat that is a result, and a part that is one, too."""
    g = Net("output")
    x = g.x(2, 3, 16)
    a, b = g.dense(x, 16), g.dense(x, 32)
    return g.finish([g.concat(a, b), b, g.concat(g.dense(a, 16), b)])


def as_reshaped_output() -> Graph:
    g = Net("reshaped")
    x = g.x(2, 3, 16)
    y = g.concat(g.dense(x, 16), g.dense(x, 32))
    return g.finish([g.add("reshape", [y], {"shape": (6, 48)})])


def slices() -> Graph:
    """Pieces of a value, and of a concat, are read with strides; those of one are a part."""
    g = Net("slices")
    y = g.dense(g.x(2, 3, 16), 64)
    a, b = g.cut(y, 2, 0, 32), g.cut(y, 2, 32, 64)
    z = g.concat(a, b, g.dense(b, 32))
    return g.finish([g.dense(z, 8), g.dense(g.cut(z, 2, 48, 80), 8), g.dense(g.cut(z, 1, 1, 3), 8)])


def outer() -> Graph:
    """Along the first and the middle axis, one within the other, with parts of no rows."""
    g = Net("outer")
    x = g.x(2, 3, 16)
    none = g.cut(x, 1, 1, 1)
    a = g.concat(g.dense(x, 16), g.dense(none, 16), g.dense(x, 16), axis=1)
    b = g.concat(a, g.dense(a, 16), axis=0)
    return g.finish([g.dense(b, 4)])


def reshapes() -> Graph:
    """Parts that have another shape where they are made, and where they are read."""
    g = Net("reshapes")
    x = g.x(2, 12, 16)
    y = g.add("reshape", [g.dense(x, 32)], {"shape": (2, 3, 4, 32)})
    a = g.add("reshape", [x], {"shape": (2, 3, 4, 16)})
    z = g.concat(y, g.dense(a, 16))
    return g.finish([g.dense(z, 4), g.dense(g.add("reshape", [y], {"shape": (2, 12, 2, 16)}), 4)])


def apart() -> Graph:
    """One value in two concats, and one that a concat cannot have: it is flattened besides."""
    g = Net("apart")
    x = g.x(2, 3, 16)
    a, b = g.dense(x, 16), g.dense(x, 32)
    flat = g.add("reshape", [b], {"shape": (2, 96)})
    return g.finish([g.dense(g.concat(a, b), 4), g.dense(g.concat(a, x), 4), g.dense(flat, 4)])


CASES = [chain, flat, leftover, as_output, as_reshaped_output, slices, outer, reshapes, apart]
COPIES = {leftover: 1, as_output: 2, apart: 2, outer: 1}


@pytest.mark.parametrize("make", CASES)
def test_levels_agree(make: Callable[[], Graph]) -> None:
    p = lowered(make())
    found = [k for k in calls(p) if k.startswith(("concat", "slice"))]
    assert len(found) == COPIES.get(make, 0), found
    check(make())


@pytest.mark.parametrize("name", ["f16", "i32", "i8"])
def test_types(name: str) -> None:
    g, dtype = Net("types"), dtypes.dtype(name)
    x = g.x(2, 3, 64, dtype=dtype)
    y = g.concat(g.add("neg", [x]), g.add("abs", [x]))
    z = g.concat(y, g.add("transpose", [y], {"perm": (0, 1, 2)}))
    check(g.finish([z, g.add("reduce_max", [z], {"axes": (1,), "keepdims": False})]))


def cropped() -> Graph:
    """What is cut off a part lies in the storage, too: it has room for the whole."""
    g = Net("cropped")
    y = g.dense(g.x(2, n, 16), 32)
    cut = g.cut(y, 1, 0, 2 * floordiv(n, 2))
    z = g.concat(cut, g.dense(cut, 32))
    return g.finish([g.dense(z, 8), g.dense(y, 8)])


@pytest.mark.parametrize("rows", [1, 4, 7])
def test_a_frame(rows: int) -> None:
    assert not {"concat", "slice"} & set(calls(lowered(cropped())))
    check(cropped(), n=rows)


def test_in_a_loop() -> None:
    """Carried and stacked values are concats, made where they are kept."""
    inner = Net("turn")
    c = inner.x(2, 32, name="c")
    y = inner.concat(inner.dense(c, 16), inner.dense(c, 16))
    y = inner.add("sub", [y, inner.constant(np.float32(1))])
    z = inner.concat(inner.dense(y, 16), inner.dense(y, 16))
    region = inner.finish([z, inner.concat(y, z)])
    g = Net("loop")
    start = g.x(2, 32)
    attrs = {"carried": 1, "trip": (3,)}
    final, stacked = g.add_multi("loop", [None, None, start], attrs, regions=(region,))
    check(g.finish([final, stacked]))


def test_strides_of_other_shapes() -> None:
    assert reshaped((2, 6, 8), (96, 16, 1), (12, 8)) == (16, 1)
    assert reshaped((12, 8), (16, 1), (2, 1, 6, 4, 2)) == (96, 96, 16, 2, 1)
    assert reshaped((2, 6, 8), (96, 16, 1), (2, 48)) is None
    assert reshaped((n, 6, 8), (96, 16, 1), (6 * n, 8)) == (16, 1)
    assert reshaped((3, 1, 4), (4, 4, 1), (12,)) == (1,)


def test_columns_do_not_overlap() -> None:
    def part(columns: int, start: int, rows: Any = 6) -> Buffer:
        b = buffer("b", f32, (2, rows, columns))
        return replace(b, strides=(128 * rows, 128, 1), base="y", offset=4 * start)

    for rows in (6, n):
        a, b = part(64, 0, rows), part(32, 64, rows)
        assert not may_overlap(a, b) and not may_overlap(part(32, 96, rows), b)
        assert may_overlap(a, part(32, 63, rows)) and may_overlap(a, part(128, 0, rows))
        assert may_overlap(a, replace(b, offset=512 + 4 * 120))  # into the next row
        assert may_overlap(a, replace(b, offset=4 * 64 * n))
        assert not may_overlap(a, replace(b, offset=b.offset + 512 * n))
    assert may_overlap(part(64, 0), replace(buffer("c", f32, (2, 6, 128)), base="y"))
    assert not may_overlap(part(64, 0), replace(part(64, 0), base="z"))
