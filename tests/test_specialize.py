"""Sizes of a graph that is there already: fixed, bounded, or refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from program_maker import Maker

import aisc
from aisc.frontend.onnx.importer import import_model
from aisc.ir import dtypes
from aisc.ir.arith.poly import symbol
from aisc.ir.diagnostics import ExecutionError
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph
from aisc.ir.graph.interpret import interpret
from aisc.ir.types import TensorType
from aisc.passes.graph.specialize import specialize


def graph() -> Graph:
    n, m = symbol("n", 1, 64), symbol("m", 0, None)
    b = GraphBuilder()
    x = b.input("x", TensorType((n, 8), dtypes.f32))
    y = b.input("y", TensorType((m, 8), dtypes.f32))
    z = b.add("concat", (x, y), {"axis": 0})
    return b.finish([b.add("reshape", (z,), {"shape": ((n + m) * 2, 4)})])


X, Y = np.ones((3, 8), np.float32), np.zeros((5, 8), np.float32)


def test_fixed_sizes() -> None:
    made = specialize(graph(), {"n": 3})
    assert [str(v.type) for v in made.inputs] == ["f32[3, 8]", "f32[m, 8]"]
    assert str(made.outputs[0].type) == "f32[2*m+6, 4]"
    both = specialize(made, {"m": 5})
    assert str(both.outputs[0].type) == "f32[16, 4]"
    np.testing.assert_array_equal(interpret(both, [X, Y])[0], interpret(graph(), [X, Y])[0])


def test_bounds() -> None:
    made = specialize(graph(), {"n": (2, 9), "m": (1, 50)})
    found = {s.name: (s.lower, s.upper) for v in made.inputs for s in v.type.symbols}
    assert found == {"n": (2, 9), "m": (1, 50)}
    exe = aisc.compile(graph(), shapes={"n": (2, 9)}, cache=False)
    np.testing.assert_array_equal(exe(X, Y), interpret(graph(), [X, Y])[0])
    with pytest.raises(ExecutionError) as caught:
        exe(np.ones((10, 8), np.float32), Y)
    assert caught.value.codes == ("E501",)


def test_the_compiler_does_it() -> None:
    exe = aisc.compile(graph(), shapes={"n": 3, "m": 5}, cache=False)
    assert exe.outputs[0].type.static_shape == (16, 4)
    np.testing.assert_array_equal(exe(X, Y), interpret(graph(), [X, Y])[0])


@pytest.mark.parametrize(
    "shapes", [{"k": 3}, {"n": 0}, {"n": 65}, {"n": (1, 65)}, {"n": (5, 4)}, {"n": (0, 4)}]
)
def test_what_does_not_fit(shapes: dict[str, Any]) -> None:
    with pytest.raises(aisc.CompileError) as caught:
        aisc.compile(graph(), shapes=shapes, cache=False)
    assert caught.value.codes == ("E106",)


@pytest.mark.parametrize("seed", range(12))
def test_random_programs(seed: int) -> None:
    """A graph with its sizes fixed gives what it gives without."""
    maker = Maker(seed)
    imported, feeds = import_model(maker.program()), maker.feeds()
    names = [v.name for v in imported.inputs]
    for feed in feeds:
        arrays = [feed[n] for n in names]
        sizes = {
            s.name: size
            for v, a in zip(imported.inputs, arrays, strict=True)
            for d, size in zip(v.type.shape, a.shape, strict=True)
            for s in ([*TensorType((d,), dtypes.f32).symbols] if str(d).isidentifier() else ())
        }
        fixed = specialize(imported, sizes)
        assert not any(v.type.symbols for v in fixed.inputs)
        for a, b in zip(interpret(fixed, arrays), interpret(imported, arrays), strict=True):
            np.testing.assert_array_equal(a, b)
        exe = aisc.compile(imported, shapes=sizes, threads=1, cache=False)
        for a, b in zip(exe.run(None, feed), interpret(imported, arrays), strict=True):
            np.testing.assert_array_equal(a, b)
