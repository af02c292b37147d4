"""ONNX contractions: MatMul, Gemm, Conv and their integer kin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

from aisc.frontend.building.emitter import Emitter
from aisc.frontend.onnx.fitting import fitted
from aisc.frontend.onnx.node import Node, onnx_op
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, ceildiv, floordiv, maximum
from aisc.ir.graph.core import AttrValue, Value


@onnx_op("MatMul")
def _matmul(em: Emitter, node: Node) -> Value:
    return em.op("matmul", node.input(0), node.input(1))


def less_zero_point(em: Emitter, value: Value, zero: Value | None, axis: int) -> Value:
    """`value` less its zero point, in i16, which holds the difference of two bytes; as it is where
    there is no zero point or it is known to be 0. A vector of them runs along `axis`."""
    blob = None if zero is None else em.builder.constants.get(zero)
    if zero is None or (blob is not None and not blob.array.any()):
        return value
    wide, z = em.cast(value, dtypes.i16), em.cast(zero, dtypes.i16)
    if z.type.rank == 1 and z.type.shape != (1,):
        trailing = (1,) * (wide.type.rank - 1 - axis % wide.type.rank)
        z = em.reshape(z, (*z.type.shape, *trailing))
    elif z.type.rank == 1:
        z = em.reshape(z, ())
    return em.op("sub", wide, z)


@onnx_op("MatMulInteger")
def _matmul_integer(em: Emitter, node: Node) -> Value:
    a = less_zero_point(em, node.input(0), node.optional(2), -2)
    b = less_zero_point(em, node.input(1), node.optional(3), -1)
    return em.op("matmul", a, b, accumulator="i32")


@onnx_op("Gemm")
def _gemm(em: Emitter, node: Node) -> Value:
    """``alpha * a' @ b' + beta * c`` as transposes, a matmul, products and a sum."""
    a, b, c = node.input(0), node.input(1), node.optional(2)
    alpha, beta = node.number("alpha", 1.0), node.number("beta", 1.0)
    old = node.flag("broadcast", True)
    if a.type.rank != 2 or b.type.rank != 2:
        raise node.malformed(f"operands {a.type} and {b.type} are no matrices")
    a = em.transpose(a, (1, 0)) if node.flag("transA") else a
    b = em.transpose(b, (1, 0)) if node.flag("transB") else b
    y = em.op("matmul", a, b)
    if alpha != 1.0:
        y = em.op("mul", y, em.like(alpha, y))
    if c is None or beta == 0.0:
        return y
    if not old and node.version < 7:
        c = fitted(em, node, c, y.type.shape, "operand C does not have the result's shape")
    if beta != 1.0:
        c = em.op("mul", c, em.like(beta, c))
    total = em.op("add", y, c)
    reason = f"operand C {c.type} does not broadcast to {y.type}"
    return fitted(em, node, total, y.type.shape, reason)


def same_pads(
    node: Node, sizes: Sequence[Dim], kernel: Sequence[int], upper: bool
) -> tuple[Dim, ...]:
    """Explicit pads of SAME_UPPER or SAME_LOWER."""
    strides = node.ints("strides") or (1,) * len(kernel)
    dilations = node.ints("dilations") or (1,) * len(kernel)
    begins, ends = [], []
    for size, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
        total = maximum((ceildiv(size, s) - 1) * s + ((k - 1) * d + 1) - size, 0)
        less = floordiv(total, 2)
        more = total - less
        begins.append(less if upper else more)
        ends.append(more if upper else less)
    return (*begins, *ends)


def are_known(pads: tuple[Dim, ...]) -> TypeGuard[tuple[int, ...]]:
    """Whether no pad depends on a size of the run."""
    return all(isinstance(p, int) for p in pads)


def bordered(em: Emitter, x: Value, pads: tuple[Dim, ...], fill: Value | None = None) -> Value:
    """An image with a border, of zeros if nothing else is given, where the pads depend on sizes
    of the run; others are attributes of the window operator."""
    if are_known(pads):
        return x
    half = len(pads) // 2
    inputs = (x,) if fill is None else (x, fill)
    return em.op("pad", *inputs, pads=(0, 0, *pads[:half], 0, 0, *pads[half:]), mode="constant")


def pads_of(node: Node, sizes: Sequence[Dim], kernel: Sequence[int]) -> tuple[Dim, ...]:
    """The pads of a window operator, from `pads` or `auto_pad`."""
    auto, pads = node.text("auto_pad", "NOTSET"), node.ints("pads")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        return same_pads(node, sizes, kernel, auto == "SAME_UPPER")
    if auto not in ("NOTSET", "VALID", ""):
        raise node.malformed(f"auto_pad '{auto}'")
    return (0,) * (2 * len(kernel)) if auto == "VALID" or pads is None else pads


def kernel_of(node: Node, w: Value) -> tuple[int, ...]:
    """The kernel sizes of a convolution's weight, checked against `kernel_shape`."""
    if w.type.rank < 3:
        raise node.unsupported(f"the weight {w.type} has no spatial axes")
    kernel = tuple(d for d in w.type.shape[2:] if isinstance(d, int))
    if len(kernel) != w.type.rank - 2:
        raise node.unsupported("the kernel's sizes must be known")
    declared = node.ints("kernel_shape")
    if declared is not None and declared != kernel:
        raise node.malformed(f"kernel_shape {declared} but the weight is {w.type}")
    return kernel


def with_channels(em: Emitter, x: Value, channels: Dim) -> Value:
    """`x`, whose open number of channels can only be what the weight expects."""
    if isinstance(x.type.shape[1], int):
        return x
    return em.assume(x, (x.type.shape[0], channels, *x.type.shape[2:]))


def convolve(
    em: Emitter, node: Node, x: Value, w: Value, bias: Value | None, accumulator: str = ""
) -> Value:
    """A convolution with the attributes of `node`, whose sums may have a type of their own."""
    kernel = kernel_of(node, w)
    if x.type.rank != w.type.rank:
        raise node.malformed(f"input {x.type} and weight {w.type} differ in rank")
    pads = pads_of(node, x.type.shape[2:], kernel)
    strides, dilations = node.ints("strides") or (), node.ints("dilations") or ()
    group = node.integer("group", 1)
    x = bordered(em, with_channels(em, x, w.type.shape[1] * group), pads)
    pads = pads if are_known(pads) else ()
    inputs = (x, w) if bias is None else (x, w, bias)
    return em.op(
        "conv", *inputs, pads=pads, strides=strides, dilations=dilations, group=group,
        accumulator=accumulator,
    )  # fmt: skip


@onnx_op("Conv")
def _conv(em: Emitter, node: Node) -> Value:
    return convolve(em, node, node.input(0), node.input(1), node.optional(2))


@onnx_op("ConvInteger")
def _conv_integer(em: Emitter, node: Node) -> Value:
    x = less_zero_point(em, node.input(0), node.optional(2), 1)
    w = less_zero_point(em, node.input(1), node.optional(3), 0)
    return convolve(em, node, x, w, None, "i32")


def _transposed_pads(
    node: Node, sizes: Sequence[Dim], kernel: Sequence[int], extra: Sequence[int]
) -> tuple[Dim, ...]:
    """Pads of a transposed convolution, from `output_shape`, `auto_pad` or `pads`."""
    wanted, auto = node.ints("output_shape"), node.text("auto_pad", "NOTSET")
    same = auto in ("SAME_UPPER", "SAME_LOWER")
    if wanted is None and not same:
        return pads_of(node, sizes, kernel)
    node.ints("pads")
    strides = node.ints("strides") or (1,) * len(kernel)
    dilations = node.ints("dilations") or (1,) * len(kernel)
    wanted = None if wanted is None else wanted[-len(kernel) :]
    begins, ends = [], []
    for a, (size, k) in enumerate(zip(sizes, kernel, strict=True)):
        full = (size - 1) * strides[a] + ((k - 1) * dilations[a] + 1 + extra[a])
        total = full - (size * strides[a] if wanted is None else wanted[a])
        less = floordiv(total, 2)
        more = total - less
        begins.append(less if auto == "SAME_UPPER" else more)
        ends.append(more if auto == "SAME_UPPER" else less)
    return (*begins, *ends)


@onnx_op("ConvTranspose")
def _conv_transpose(em: Emitter, node: Node) -> Value:
    x, w = node.input(0), node.input(1)
    kernel = kernel_of(node, w)
    if x.type.rank != w.type.rank:
        raise node.malformed(f"input {x.type} and weight {w.type} differ in rank")
    extra = node.ints("output_padding") or (0,) * len(kernel)
    if len(extra) != len(kernel):
        raise node.malformed(f"output_padding {extra} does not fit {w.type}")
    pads = _transposed_pads(node, x.type.shape[2:], kernel, extra)
    x = with_channels(em, x, w.type.shape[0])
    inputs = [v for v in (x, w, node.optional(2)) if v is not None]
    attrs: dict[str, AttrValue] = {
        "strides": node.ints("strides") or (), "dilations": node.ints("dilations") or (),
        "group": node.integer("group", 1),
    }  # fmt: skip
    if not are_known(pads):
        whole = em.op("conv_transpose", *inputs, output_padding=extra, **attrs)
        return _cropped(em, whole, pads)
    # Pads below zero enlarge the output: that is what output_padding does at the end.
    before, after = pads[: len(kernel)], pads[len(kernel) :]
    if min(before) < 0:
        raise node.unsupported("an output larger than the convolution's reach")
    extra = tuple(e + max(-p, 0) for e, p in zip(extra, after, strict=True))
    cut = (*before, *(max(p, 0) for p in after))
    return em.op("conv_transpose", *inputs, pads=cut, output_padding=extra, **attrs)


def _cropped(em: Emitter, y: Value, pads: Sequence[Dim]) -> Value:
    """`y` without pads that only the run knows."""
    half, shape = len(pads) // 2, y.type.shape
    ends = [d - p for d, p in zip(shape[2:], pads[half:], strict=True)]
    starts, stops = (0, 0, *pads[:half]), (*shape[:2], *ends)
    return em.op("slice", y, starts=starts, ends=stops, steps=(1,) * len(shape))
