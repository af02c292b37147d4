"""Operators without operands: constants, counting, and vectors of sizes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aisc.ir import dtypes
from aisc.ir.graph.opdef import Array, Arrays, Attr, OpCall, OpDef, Operand, Variant, register
from aisc.ir.graph.ops.movement import sizes
from aisc.ir.graph.shapes import infer
from aisc.ir.graph.shapes.checks import no_size_below_zero
from aisc.ir.tensor import expr as e
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Expr, Var
from aisc.ir.tensor.func import Buffer
from aisc.ir.types import TensorType

Ins = Sequence[Buffer | None]
Outs = Sequence[Buffer]

register(
    OpDef(
        "constant", "A tensor known at compile time.",
        (), lambda call: (call.attrs["value"].type,),
        lambda call, xs: [call.attrs["value"].array],
        "constant", (Attr("value", "blob"),),
    )
)  # fmt: skip


def _iota_rule(call: OpCall) -> tuple[TensorType, ...]:
    if call.attrs["dtype"].kind == "bool":
        raise call.fail("bool does not count", code="E203")
    if len(call.attrs["shape"]) != 1:
        raise call.fail("the shape must have one dimension", code="E203")
    no_size_below_zero(call, call.attrs["shape"])
    return (TensorType(tuple(call.attrs["shape"]), call.attrs["dtype"]),)


def _iota_compute(cb: ComputeBuilder, call: OpCall, ins: Ins, outs: Outs) -> None:
    cb.map(outs[0], lambda i: e.cast(i, outs[0].dtype), "iota")


register(
    OpDef(
        "iota", "The vector 0, 1, ... of the one-dimensional `shape`.",
        (), _iota_rule,
        lambda call, xs: [np.arange(sizes(call.attrs["shape"])[0])],
        "movement", (Attr("shape", "dims"), Attr("dtype", "dtype", dtypes.i64)),
        variants={"direct": Variant(_iota_compute)},
    )
)  # fmt: skip


def _sizes_rule(call: OpCall) -> tuple[TensorType, ...]:
    return (TensorType((len(call.attrs["values"]),), dtypes.i64),)


def _sizes_reference(call: OpCall, xs: Arrays) -> list[Array]:
    return [np.asarray(sizes(call.attrs["values"]), np.int64)]


def _sizes_compute(cb: ComputeBuilder, call: OpCall, ins: Ins, outs: Outs) -> None:
    values = call.attrs["values"]

    def element(i: Var) -> Expr:
        result: Expr = e.of_dim(values[-1]) if values else e.ZERO
        for place in range(len(values) - 2, -1, -1):
            result = e.select(e.equal(i, place), e.of_dim(values[place]), result)
        return result

    cb.map(outs[0], element, "sizes")


register(
    OpDef(
        "sizes", "The vector of the values of dimensions, e.g. a symbolic shape.",
        (), _sizes_rule, _sizes_reference, "movement", (Attr("values", "dims"),),
        variants={"direct": Variant(_sizes_compute)},
    )
)  # fmt: skip


def _one_hot_rule(call: OpCall) -> tuple[TensorType, ...]:
    infer.check_dtype(call, 0, infer.is_integer)
    x = call.type(0)
    axis = infer.normal_axis(call, call.attrs["axis"], x.rank + 1)
    if len(call.attrs["depth"]) != 1:
        raise call.fail("the depth must be one dimension", code="E203")
    no_size_below_zero(call, call.attrs["depth"])
    shape = (*x.shape[:axis], *call.attrs["depth"], *x.shape[axis:])
    return (TensorType(shape, dtypes.boolean),)


def _one_hot_reference(call: OpCall, xs: Arrays) -> list[Array]:
    x = xs[0]
    assert x is not None, "one_hot without operand"
    axis, (depth,) = call.attrs["axis"] % (x.ndim + 1), sizes(call.attrs["depth"])
    wide = x.astype(np.int64)
    wrapped = np.expand_dims(np.where(wide < 0, wide + depth, wide), axis)
    return [wrapped == np.arange(depth).reshape([-1] + [1] * (x.ndim - axis))]


def _one_hot_compute(cb: ComputeBuilder, call: OpCall, ins: Ins, outs: Outs) -> None:
    x, (out,) = ins[0], outs
    assert x is not None, "one_hot without operand"
    axis, depth = call.attrs["axis"] % out.rank, e.of_dim(call.attrs["depth"][0])

    def value(*i: Var) -> Expr:
        index = e.cast(e.Load(x, (*i[:axis], *i[axis + 1 :])), dtypes.i64)
        return e.equal(e.select(index < 0, index + depth, index), i[axis])

    cb.map(out, value, "one_hot")


register(
    OpDef(
        "one_hot", "Whether the index equals the place along the new `axis` of size `depth`; "
        "negative indices count from the end, others outside match nothing.",
        (Operand("indices"),), _one_hot_rule, _one_hot_reference, "movement",
        (Attr("depth", "dims"), Attr("axis", "int", -1)),
        variants={"direct": Variant(_one_hot_compute)},
    )
)  # fmt: skip
