"""Tiles over the pixels of several lines: where fewer are wasted, with the same results."""

from __future__ import annotations

import numpy as np
import pytest
from test_winograd import lowered, model
from test_x86_levels import LEVELS

import aisc
from aisc.driver.api import resolve_target
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, symbol
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph
from aisc.ir.graph.interpret import interpret
from aisc.ir.types import TensorType
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.default import default_schedule

Sizes = tuple[Dim, ...]


def image(x: Sizes, w: tuple[int, ...], *, add: bool = False, **attrs: object) -> Graph:
    """A convolution with constant weights, small integers; `add`: and what its input has is added
    and cut off at zero; else its result is one of the model's, beside another that reads it."""
    rng, b = np.random.default_rng(0), GraphBuilder()
    given = b.input("x", TensorType(x, dtypes.f32))
    weights = b.constant(rng.integers(-3, 4, w).astype(np.float32))
    y = b.add("conv", [given, weights], attrs)
    if add:
        return b.finish([b.add("relu", [b.add("add", [y, given])])])
    return b.finish([y, b.add("neg", [y])])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("x", "w", "attrs"),
    [
        ((1, 40, 7, 7), (40, 40, 3, 3), {"pads": (1, 1, 1, 1), "add": True}),
        ((2, 16, 14, 14), (48, 16, 3, 3), {"strides": (2, 2), "pads": (1, 1, 1, 1)}),
        ((1, 24, 13, 9), (20, 24, 5, 3), {"pads": (2, 1, 2, 1)}),
        ((1, 32, 11, 6), (32, 16, 3, 3), {"group": 2, "pads": (1, 1, 1, 1), "add": True}),
        ((1, 12, 9, 9), (24, 12, 3, 3), {"dilations": (2, 2)}),
        ((symbol("n"), 40, 7, 7), (40, 40, 3, 3), {"pads": (1, 1, 1, 1)}),
        ((1, 8, 5, 5), (16, 8, 5, 5), {}),
    ],
)
def test_pixels_of_lines_together(level: str, x: Sizes, w: tuple[int, ...], attrs: dict) -> None:
    graph = image(x, w, **attrs)
    runs = [
        aisc.compile(graph, target=resolve_target(level), threads=n, cache=False) for n in (1, 2)
    ]
    for images in (x[0],) if isinstance(x[0], int) else (1, 3, 0):
        data = np.random.default_rng(1).integers(-4, 5, (images, *x[1:])).astype(np.float32)
        want = interpret(graph, [data])
        for run in runs:
            for a, b in zip(run.run(None, {"x": data}), want, strict=True):
                assert np.array_equal(a, b)


@pytest.mark.parametrize(("size", "together"), [(7, True), (14, True), (11, True), (12, False)])
def test_only_where_fewer_are_wasted(size: int, together: bool) -> None:
    func, _ = lowered(model(1, size + 2, size + 2, 64, 96, kernel=5))
    s = default_schedule(func, Chooser(resolve_target("x86-64-v3")))
    assert {p.name: p.choice for p in s.picks}["conv_1.rows"] == ("image" if together else "line")
    assert ("fuse_iters" in str(s.trace)) == together
