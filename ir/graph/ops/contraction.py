"""Matrix multiplication with numpy semantics: batches broadcast, 1-D operands are vectors.

A contraction has three types: those of its operands and that of its sums, which the attribute
:data:`ACCUMULATOR` names where it is not the operands' own. The result keeps the type of the sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim
from aisc.ir.graph.opdef import (
    Array,
    Arrays,
    Attr,
    OpCall,
    OpDef,
    Operand,
    Variant,
    present,
    register,
)
from aisc.ir.graph.ops.elementwise import wide_array
from aisc.ir.graph.shapes import infer
from aisc.ir.graph.shapes.checks import require
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import ZERO, Expr, Load, Var, cast
from aisc.ir.tensor.func import Buffer
from aisc.ir.types import TensorType

ACCUMULATOR = Attr("accumulator", "str", "", ("", "i32", "i64", "f32", "f64"))
# Integers up to which every product and sum is exact in float64.
EXACT = 1 << 53


def _shapes(call: OpCall) -> tuple[tuple[Dim, ...], tuple[Dim, ...]]:
    """The operands' shapes as matrices: a vector is a row on the left, a column on the right."""
    a, b = call.type(0).shape, call.type(1).shape
    return (1, *a) if len(a) == 1 else a, (*b, 1) if len(b) == 1 else b


def _rule(call: OpCall) -> tuple[TensorType, ...]:
    infer.check_rank(call, 0, 1)
    infer.check_rank(call, 1, 1)
    infer.check_dtype(call, 0, infer.is_number)
    t = infer.contracted(call, 0, 1)
    a, b = _shapes(call)
    require(call, "==", a[-1], b[-2], "inner sizes")
    shape = infer.broadcast(call, a[:-2], b[:-2])
    rows = () if call.type(0).rank == 1 else (a[-2],)
    columns = () if call.type(1).rank == 1 else (b[-1],)
    return (TensorType((*shape, *rows, *columns), t),)


def _reference(call: OpCall, xs: Arrays) -> list[Array]:
    a, b = present(xs)
    return [counted(call, np.matmul(*factors(call, a, b, a.shape[-1])))]


def counted(call: OpCall, sums: Array) -> Array:
    """Sums of integers, which :func:`factors` may have had in float64, as integers."""
    exact = call.type(0).dtype.is_integer and sums.dtype == np.float64
    return sums.astype(np.int64) if exact else sums


def factors(call: OpCall, a: Array, b: Array, terms: int) -> tuple[Array, Array]:
    """The operands of a contraction in the type in which a reference adds up so many products:
    short integers in float64 where that is exact, which numpy multiplies faster."""
    kinds = [dtypes.from_numpy(x.dtype) for x in (a, b)]
    if all(t.is_integer and t.bits <= 16 for t in kinds):
        most = prod(max(-int(t.min_value), int(t.max_value)) for t in kinds)
        if most * terms < EXACT:
            return a.astype(np.float64), b.astype(np.float64)
    name = call.attrs["accumulator"]
    if name:
        kind = dtypes.dtype(name).numpy
        return a.astype(kind), b.astype(kind)
    return wide_array(a), wide_array(b)


def _batch(buf: Buffer, at: Sequence[Expr], matrix: tuple[Expr, ...]) -> Load:
    """Load from `buf` at the broadcast batch indices `at`, then `matrix`."""
    dims = buf.shape[: buf.rank - len(matrix)]
    tail = at[len(at) - len(dims) :]
    return Load(buf, (*(ZERO if d == 1 else i for d, i in zip(dims, tail, strict=True)), *matrix))


def _compute(
    cb: ComputeBuilder, call: OpCall, ins: Sequence[Buffer | None], outs: Sequence[Buffer]
) -> None:
    a, b = ins
    assert a is not None, "matmul without left operand"
    assert b is not None, "matmul without right operand"
    (out,) = outs
    acc_type = infer.accumulator(out.dtype)
    acc = out if acc_type is out.dtype else cb.alloc("acc", acc_type, out.shape)
    has_row, has_column = a.rank > 1, b.rank > 1

    def product(at: Sequence[Var], r: Sequence[Var]) -> Expr:
        indices = list(at)
        column = (indices.pop(),) if has_column else ()
        row = (indices.pop(),) if has_row else ()
        x = _batch(a, indices, (*row, r[0]))
        y = _batch(b, indices, (r[0], *column))
        return cast(x, acc_type) * cast(y, acc_type)

    cb.reduce(acc, (a.shape[-1],), "sum", product, "matmul")
    if acc is not out:
        cb.map(out, lambda *i: cast(Load(acc, i), out.dtype), "narrow")


register(
    OpDef(
        "matmul",
        "``out[..., m, n] = sum over k of a[..., m, k] * b[..., k, n]``, as numpy.matmul; "
        "`accumulator` is the type of sum and result, if not the operands'.",
        (Operand("a"), Operand("b")), _rule, _reference, "contraction",
        (ACCUMULATOR,), variants={"direct": Variant(_compute)},
    )
)  # fmt: skip
