"""The design's definition of agreement: errors against a float64 reference.

A result agrees when its error is at most ``max(4 * peer's error, n * eps)``, where the peer is
onnxruntime, n is a small number of roundings relative to the largest result, and the reference is
the imported graph evaluated by the graph interpreter with every float widened to float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aisc.ir import dtypes
from aisc.ir.blob import Blob
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph, Value
from aisc.ir.graph.interpret import interpret
from aisc.ir.types import TensorType

ROUNDINGS = 64


def widened(graph: Graph) -> Graph:
    """`graph` with f32 replaced by f64: inputs, constants and casts."""
    b = GraphBuilder(graph.name)
    table: dict[Value, Value] = {}
    for v in graph.inputs:
        dtype = dtypes.f64 if v.type.dtype is dtypes.f32 else v.type.dtype
        table[v] = b.input(v.name, TensorType(v.type.shape, dtype))
    for node in graph.nodes:
        attrs = node.attr_map
        for key, value in attrs.items():
            if isinstance(value, Blob) and value.dtype is dtypes.f32:
                attrs[key] = Blob(value.array.astype(np.float64))
            if value is dtypes.f32:
                attrs[key] = dtypes.f64
        inputs = [None if v is None else table[v] for v in node.inputs]
        names = [v.name for v in node.outputs]
        regions = tuple(map(widened, node.regions))
        outputs = b.add_multi(node.op, inputs, attrs, names, regions=regions)
        table.update(zip(node.outputs, outputs, strict=True))
    return b.finish([table[v] for v in graph.outputs], graph.result_names)


def reference(graph: Graph, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Results of `graph` in float64."""
    wide = [x.astype(np.float64) if x.dtype == np.float32 else x for x in inputs]
    return list(interpret(widened(graph), wide))


def error(got: np.ndarray, exact: np.ndarray) -> float:
    """Largest absolute error; where `exact` is not finite, `got` must be the same."""
    finite = np.isfinite(exact)
    same = np.array_equal(got[~finite], exact[~finite].astype(got.dtype), equal_nan=True)
    if not same or got.shape != exact.shape:
        return float("inf")
    return float(np.abs(got.astype(np.float64) - exact)[finite].max(initial=0.0))


def assert_agrees(
    got: Sequence[np.ndarray], peer: Sequence[np.ndarray], exact: Sequence[np.ndarray]
) -> None:
    """Every result agrees by the definition."""
    assert len(got) == len(exact)
    for mine, theirs, true in zip(got, peer, exact, strict=True):
        if not np.issubdtype(mine.dtype, np.floating):
            assert np.array_equal(mine, theirs)
            continue
        scale = float(np.abs(true[np.isfinite(true)]).max(initial=0.0))
        bound = max(4 * error(theirs, true), ROUNDINGS * np.finfo(mine.dtype).eps * scale)
        assert error(mine, true) <= bound
