"""Windows that are added up where they overlap: what a transposed convolution ends with."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from aisc.ir.arith.poly import Dim
from aisc.ir.graph.opdef import Array, Arrays, OpCall, OpDef, Operand, Variant, register
from aisc.ir.graph.ops.elementwise import wide_array
from aisc.ir.graph.shapes import infer
from aisc.ir.graph.shapes.checks import require
from aisc.ir.graph.shapes.spatial import WINDOW_ATTRS, Window, window_of
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Binary, Expr, Load, Var, const, logical_and, of_dim, select
from aisc.ir.tensor.func import Buffer
from aisc.ir.types import TensorType


def _window(call: OpCall) -> tuple[Window, tuple[Dim, ...], Dim, Dim]:
    """(window, places, batch, channels) of what is folded."""
    shape, k = call.type(0).shape, (call.type(0).rank - 2) // 2
    last = call.attrs["data_layout"] == "NHWC"
    taps = infer.static_dims(call, 0, tuple(range(k + 1, 2 * k + 1) if last else range(2, 2 + k)))
    places = shape[1 : k + 1] if last else shape[2 + k :]
    return window_of(call, taps), tuple(places), shape[0], shape[-1] if last else shape[1]


def _rule(call: OpCall) -> tuple[TensorType, ...]:
    rank = infer.check_rank(call, 0, 4)
    infer.check_dtype(call, 0, infer.is_number)
    if rank % 2:
        raise call.fail("taps and places must have as many axes")
    window, places, n, c = _window(call)
    sizes = [
        d + (k - 1) * step - b - e
        for d, k, step, b, e in zip(
            places, window.kernel, window.dilations, window.begins, window.ends, strict=True
        )
    ]
    for size in sizes:
        if isinstance(size, int) and size < 0:
            raise call.fail("the pads remove more than there is")
        require(call, "<=", 0, size, "what the pads leave")
    return (TensorType(window.join(n, c, sizes), call.type(0).dtype),)


def _reference(call: OpCall, xs: Arrays) -> list[Array]:
    assert xs[0] is not None, "fold without input"
    window, z = _window(call)[0], wide_array(xs[0])
    k = window.spatial
    if not window.channels_last:
        z = np.moveaxis(z, (1, *range(2, 2 + k)), (-1, *range(-1 - k, -1)))
    n, *places, c = *z.shape[: k + 1], z.shape[-1]
    full = [
        d + (t - 1) * s for d, t, s in zip(places, window.kernel, window.dilations, strict=True)
    ]
    out = np.zeros((n, *full, c), z.dtype)
    for tap in itertools.product(*map(range, window.kernel)):
        at = [
            slice(t * s, t * s + d) for t, s, d in zip(tap, window.dilations, places, strict=True)
        ]
        out[(slice(None), *at)] += z[(slice(None),) * (k + 1) + tap]
    cut = [slice(b, d - e) for b, e, d in zip(window.begins, window.ends, full, strict=True)]
    out = out[(slice(None), *cut)]
    return [out if window.channels_last else np.moveaxis(out, -1, 1)]


def _compute(
    cb: ComputeBuilder, call: OpCall, ins: Sequence[Buffer | None], outs: Sequence[Buffer]
) -> None:
    (z,), (out,) = ins, outs
    assert z is not None, "fold without input"
    window, places, _, _ = _window(call)

    def term(index: Sequence[Var], taps: Sequence[Var]) -> Expr:
        n, c, at = window.parts(index)
        source = [
            p + b - t * d
            for p, b, t, d in zip(at, window.begins, taps, window.dilations, strict=True)
        ]
        tests = [
            Binary(name, p, limit)
            for p, size in zip(source, places, strict=True)
            for name, limit in (("ge", const(0)), ("lt", of_dim(size)))
        ]
        where = (n, *source, *taps, c) if window.channels_last else (n, c, *taps, *source)
        return select(logical_and(*tests), Load(z, where), const(0, z.dtype))

    cb.reduce(out, window.kernel, "sum", term, "fold")


register(
    OpDef(
        "fold",
        "The sum of windows where they overlap: windows of x, (batch, channels, taps..., "
        "places...) or (batch, places..., taps..., channels), are added up at the places that "
        "their taps have in an image, which `pads` cut.",
        (Operand("x"),), _rule, _reference, "window",
        tuple(a for a in WINDOW_ATTRS if a.name != "strides"),
        variants={"direct": Variant(_compute)},
    )
)  # fmt: skip
