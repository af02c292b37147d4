"""ONNX pools."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aisc.frontend.building.emitter import Emitter
from aisc.frontend.onnx.node import Node, onnx_op
from aisc.frontend.onnx.ops.linear import are_known, bordered, pads_of
from aisc.frontend.onnx.ops.windows import places_of_maxima
from aisc.ir.arith.poly import Dim
from aisc.ir.graph.core import AttrValue, Value


def _window(node: Node, x: Value) -> tuple[dict[str, AttrValue], tuple[Dim, ...]]:
    """The attributes of a pool, and its pads; those that depend on sizes of the run are no
    attribute: the image gets a border before (:func:`bordered`)."""
    kernel = node.needed_ints("kernel_shape")
    if x.type.rank != len(kernel) + 2:
        raise node.malformed(f"kernel {kernel} does not fit {x.type}")
    pads = pads_of(node, x.type.shape[2:], kernel)
    return {
        "kernel_shape": kernel,
        "pads": pads if are_known(pads) else (),
        "strides": node.ints("strides") or (),
        "dilations": node.ints("dilations") or (),
        "ceil_mode": node.flag("ceil_mode"),
    }, pads


@onnx_op("MaxPool")
def _max_pool(em: Emitter, node: Node) -> Sequence[Value]:
    x = node.input(0)
    window, pads = _window(node, x)
    t = x.type.dtype
    lowest = em.constant(-np.inf if t.is_float else t.min_value, t)
    y = em.op("max_pool", bordered(em, x, pads, lowest), **window)
    if any(node.outputs[1:]):
        return y, places_of_maxima(em, node, y, window, pads[: len(pads) // 2])
    node.integer("storage_order")
    return (y,)


@onnx_op("AveragePool")
def _average_pool(em: Emitter, node: Node) -> Value:
    include, x = node.flag("count_include_pad"), node.input(0)
    window, pads = _window(node, x)
    y = em.op("avg_pool", bordered(em, x, pads), count_include_pad=include, **window)
    if include or are_known(pads):
        return y
    # Of each window, the share of it that lies inside.
    inner = (1, 1, *x.type.shape[2:])
    ones = bordered(em, em.filled(inner, np.ones((), x.type.dtype.numpy)), pads)
    return em.op("div", y, em.op("avg_pool", ones, **window))


@onnx_op("LpPool")
def _lp_pool(em: Emitter, node: Node) -> Value:
    p = int(node.number("p", 2.0)) if node.version < 2 else node.integer("p", 2)
    window, pads = _window(node, node.input(0))
    return em.op("lp_pool", bordered(em, node.input(0), pads), p=p, **window)


def _spatial_axes(node: Node) -> tuple[int, ...]:
    rank = node.input(0).type.rank
    if rank < 3:
        raise node.malformed(f"{node.input(0).type} has no spatial axes")
    return tuple(range(2, rank))


@onnx_op("GlobalAveragePool")
def _global_average(em: Emitter, node: Node) -> Value:
    return em.op("reduce_mean", node.input(0), axes=_spatial_axes(node), keepdims=True)


@onnx_op("GlobalMaxPool")
def _global_max(em: Emitter, node: Node) -> Value:
    return em.op("reduce_max", node.input(0), axes=_spatial_axes(node), keepdims=True)


@onnx_op("GlobalLpPool")
def _global_lp(em: Emitter, node: Node) -> Value:
    p = int(node.number("p", 2.0)) if node.version < 2 else node.integer("p", 2)
    x, axes = node.input(0), _spatial_axes(node)
    if p in (1, 2):
        return em.op(f"reduce_l{p}", x, axes=axes, keepdims=True)
    powers = em.op("pow", em.op("abs", x), em.like(p, x))
    total = em.op("reduce_sum", powers, axes=axes, keepdims=True)
    return em.op("pow", total, em.like(1 / p, x))
