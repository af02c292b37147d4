"""Graphs of attention in the forms that models have, and inputs for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim
from aisc.ir.dtypes import DType
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph, Value
from aisc.ir.types import TensorType

Array = np.ndarray


@dataclass(frozen=True)
class Form:
    """Sizes and form.

    mask, where: shapes of an additive and of a boolean mask; masked: what stands for what the
    latter leaves out. apart: heads come second to last, and results leave so. shared: all heads
    have the same keys and values.
    """

    batch: Dim = 1
    heads: int = 2
    queries: Dim = 32
    keys: Dim = 32
    depth: Dim = 16
    width: Dim = 16
    mask: tuple[Dim, ...] = ()
    where: tuple[Dim, ...] = ()
    masked: float = -1e4
    apart: bool = False
    shared: bool = False
    dtype: DType = dtypes.f32


def graph_of(f: Form) -> Graph:
    """``softmax(q k^T * 0.37 + mask) v``."""
    g = GraphBuilder()
    q, k, v = _operands(g, f)
    k = g.add("transpose", (k,), {"perm": (0, 1, 3, 2)})
    s = g.add("matmul", (q, k))
    s = g.add("mul", (s, g.constant(np.asarray(0.37, f.dtype.numpy))))
    if f.where:
        fill = g.constant(np.asarray(f.masked, f.dtype.numpy))
        s = g.add("where", (g.input("where", TensorType(f.where, dtypes.boolean)), s, fill))
    if f.mask:
        s = g.add("add", (s, g.input("mask", TensorType(f.mask, f.dtype))))
    out = g.add("matmul", (g.add("softmax", (s,), {"axis": -1}), v))
    if f.apart:
        out = g.add("transpose", (out,), {"perm": (0, 2, 1, 3)})
    return g.finish([out])


def _operands(g: GraphBuilder, f: Form) -> list[Value]:
    operands = []
    for name, size, width in (
        ("q", f.queries, f.depth), ("k", f.keys, f.depth), ("v", f.keys, f.width),
    ):  # fmt: skip
        heads = 1 if f.shared and name != "q" else f.heads
        shape = (f.batch, size, heads, width) if f.apart else (f.batch, heads, size, width)
        x = g.input(name, TensorType(shape, f.dtype))
        operands.append(g.add("transpose", (x,), {"perm": (0, 2, 1, 3)}) if f.apart else x)
    return operands


def inputs_of(graph: Graph, sizes: Mapping[str, int] | None = None, seed: int = 0) -> list[Array]:
    """Random inputs; a mask keeps two thirds."""
    rng = np.random.default_rng(seed)
    found: list[Array] = []
    for v in graph.inputs:
        shape = tuple(d if isinstance(d, int) else (sizes or {})[str(d)] for d in v.type.shape)
        if v.type.dtype is dtypes.boolean:
            found.append(rng.random(shape) < 0.66)
        else:
            found.append(rng.standard_normal(shape).astype(v.type.dtype.numpy))
    return found
