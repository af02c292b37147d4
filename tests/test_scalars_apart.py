"""Groups that differ in scalars alone share a kernel that reads them."""

from __future__ import annotations

import numpy as np
import pytest

import aisc
from aisc.ir import dtypes
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph
from aisc.ir.graph.interpret import interpret
from aisc.ir.node import walk
from aisc.ir.tensor.func import Program
from aisc.ir.tensor.stmt import CallKernel
from aisc.ir.types import TensorType
from aisc.passes.graph.fuse import Fuse
from aisc.passes.lower.scalars import scalars_apart

SCALES = (0.5, 0.25, -3.0)


def layers(
    scales: tuple[float, ...] = SCALES, same: float = 1.5, dtype: dtypes.DType = dtypes.f32
) -> Graph:
    """Sums over rows between maps that differ in a factor, and have another one in common."""
    b = GraphBuilder()
    y = b.input("x", TensorType((6, 37), dtype))
    for s in scales:
        factor, common = (b.constant(np.array(v, dtype.numpy)) for v in (s, same))
        z = b.add("sub", (b.add("mul", (y, factor)), common))
        total = b.add("reduce_sum", (z,), {"axes": (1,), "keepdims": True})
        y = b.add("add", (y, total))
    return b.finish([y])


def kernels(graph: Graph) -> tuple[int, int]:
    """How many there are, and calls of them."""
    program = aisc.lower(graph)
    assert isinstance(program, Program)
    calls = [s for s in walk(program.entry.body) if isinstance(s, CallKernel)]
    return len(program.kernels), len(calls)


@pytest.mark.parametrize("dtype", [dtypes.f32, dtypes.i32, dtypes.f64])
@pytest.mark.parametrize("scales", [SCALES, (2.0, 2.0, 2.0), (2.0, 2.0, -7.0)])
def test_one_kernel_for_all_scalars(scales: tuple[float, ...], dtype: dtypes.DType) -> None:
    graph = layers(scales, 1.0, dtype)
    found, calls = kernels(graph)
    assert calls % found == 0 and calls // found == len(scales)
    x = np.random.default_rng(0).integers(-3, 4, (6, 37)).astype(dtype.numpy)
    (want,) = interpret(graph, [x])
    for threads in (1, 2):
        assert np.array_equal(aisc.compile(graph, threads=threads, cache=False)(x), want)


def test_scalars_are_told_apart_by_their_bits() -> None:
    graph = layers((0.0, -0.0, float("nan"), float("inf")))
    found, calls = kernels(graph)
    assert calls // found == 4
    x = np.random.default_rng(0).standard_normal((6, 37)).astype(np.float32)
    (want,) = interpret(graph, [x])
    assert np.array_equal(aisc.compile(graph, cache=False)(x), want, equal_nan=True)


def test_what_groups_have_in_common_stays_a_literal() -> None:
    fused = Fuse().run(layers())
    after = scalars_apart(fused)
    groups = [n for n in after.nodes if n.op == "fused"]
    within = {
        n.attr("value").array.item()  # type: ignore[union-attr]
        for g in groups for n in g.regions[0].nodes if n.op == "constant"
    }  # fmt: skip
    given = after.constants()
    read = {given[v].array.item() for g in groups for v in g.input_values if v in given}
    assert 1.5 in within and read == set(SCALES)
    x = np.random.default_rng(0).standard_normal((6, 37)).astype(np.float32)
    assert np.array_equal(*(interpret(g, [x])[0] for g in (fused, after)))


def test_a_group_alone_keeps_its_scalars() -> None:
    fused = Fuse().run(layers((0.5,)))
    assert scalars_apart(fused) is fused


def test_indices_stay_literals() -> None:
    """Of which it is known that they are inside: nothing is tested in a run."""
    b = GraphBuilder()
    x = b.input("x", TensorType((4, 5, 6), dtypes.f32))
    found = []
    for k in (1, 3):
        row = b.add("gather", (x, b.constant(np.array([k, 0], np.int64))), {"axis": 1})
        at = b.add("add", (b.constant(np.array(k)), b.constant(np.array([0, 1], np.int64))))
        found += [b.add("exp", (row,)), b.add("exp", (b.add("gather", (x, at), {"axis": 2}),))]
    graph = b.finish(found)
    fused = Fuse().run(graph)
    assert scalars_apart(fused) is fused
