"""The border around a tensor: a constant, or what lies at its edges, repeated in some way."""

from __future__ import annotations

import numpy as np

from aisc.ir.arith.poly import (
    Dim,
    bounds,
    maximum,
    minimum,
)
from aisc.ir.graph.opdef import (
    Array,
    Arrays,
    Attr,
    OpCall,
    OpDef,
    Operand,
    Variant,
    register,
)
from aisc.ir.graph.ops.movement import Ins, Outs, only, sizes
from aisc.ir.graph.shapes import infer
from aisc.ir.graph.shapes.checks import require
from aisc.ir.tensor import expr as e
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Expr, Load, Var
from aisc.ir.types import TensorType


def _pad_rule(call: OpCall) -> tuple[TensorType, ...]:
    x, pads = call.type(0), tuple(call.attrs["pads"])
    infer.same_dtype(call, 0, 1)
    if call.has(1) and call.type(1).rank != 0:
        raise call.fail("the value must be a scalar")
    if len(pads) != 2 * x.rank:
        raise call.fail(f"{len(pads)} pads do not fit {x}", code="E203")
    shape: list[Dim] = []
    for d, b, end in zip(x.shape, pads[: x.rank], pads[x.rank :], strict=True):
        for pad in (b, end) if call.attrs["mode"] != "constant" else ():
            some = maximum(0, minimum(1, pad))  # whether it adds something
            inner = 1 if call.attrs["mode"] == "reflect" else 0
            require(call, "<=", some * (1 + inner * pad), d, "what a pad repeats and the axis")
        size = d + (b + end)
        require(call, "<=", 0, size, "what is left of an axis")
        shape.append(size)
    return (TensorType(tuple(shape), x.dtype),)


def _pad_source(mode: str, index: Array, size: int) -> Array:
    if mode == "edge":
        return np.clip(index, 0, size - 1)
    if mode == "wrap":
        return np.mod(index, size)
    period = max(2 * (size - 1), 1)
    folded = np.mod(index, period)
    return np.where(folded < size, folded, period - folded)


def _pad_reference(call: OpCall, xs: Arrays) -> list[Array]:
    x = xs[0]
    assert x is not None, "pad without operand"
    pads, mode = sizes(call.attrs["pads"]), call.attrs["mode"]
    value = xs[1] if len(xs) > 1 and xs[1] is not None else np.zeros((), x.dtype)
    for axis in range(x.ndim):
        begin, end, size = pads[axis], pads[axis + x.ndim], x.shape[axis]
        index = np.arange(-begin, size + end)
        if mode != "constant":
            x = np.take(x, _pad_source(mode, index, size), axis=axis)
            continue
        shape = (*x.shape[:axis], len(index), *x.shape[axis + 1 :])
        out = np.full(shape, value, x.dtype)
        inside = (index >= 0) & (index < size)
        lead = (slice(None),) * axis
        out[(*lead, inside)] = x[(*lead, index[inside])]
        x = out
    return [x]


def _pad_index(mode: str, index: Expr, size: Dim) -> Expr:
    n = e.of_dim(size)
    if mode == "edge":
        return e.minimum(e.maximum(index, 0), n - 1)
    if mode == "wrap":
        return index % n
    period = e.maximum((n - 1) * 2, 1)
    folded = index % period
    return e.select(folded < n, folded, period - folded)


def _pad_compute(cb: ComputeBuilder, call: OpCall, ins: Ins, outs: Outs) -> None:
    x, value, (out,) = only(ins), ins[1] if len(ins) > 1 else None, outs
    pads, mode = call.attrs["pads"], call.attrs["mode"]

    def element(*i: Var) -> Expr:
        index: list[Expr] = []
        tests: list[Expr] = []
        for axis, v in enumerate(i):
            begin, end = pads[axis], pads[axis + x.rank]
            source = v - e.of_dim(begin)
            adds = [bounds(p)[1] > 0 for p in (begin, end)]
            if mode != "constant" and any(adds):
                source = _pad_index(mode, source, x.shape[axis])
            elif any(adds):
                tests += [source >= 0] if adds[0] else []
                tests += [source < e.of_dim(x.shape[axis])] if adds[1] else []
            index.append(source)
        fill = e.const(0, x.dtype) if value is None else Load(value, ())
        return e.select(e.logical_and(*tests), Load(x, tuple(index)), fill)

    cb.map(out, element, "pad")


register(
    OpDef(
        "pad",
        "A border around x (all begins, then all ends; negative pads cut): a constant (0 without "
        "`value`), the edge repeated, reflected without it (at most all that there is besides it), "
        "or wrapped around.",
        (Operand("x"), Operand("value", optional=True)),
        _pad_rule, _pad_reference, "movement",
        (Attr("pads", "dims"),
         Attr("mode", "str", "constant", ("constant", "edge", "reflect", "wrap"))),
        variants={"direct": Variant(_pad_compute)},
    )
)  # fmt: skip
