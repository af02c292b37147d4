"""Chains of nodes as models have them, which chance alone would hardly make: what passes and rules
of schedules look for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from aisc.fuzz.maker import Maker
from aisc.fuzz.values import Fill
from aisc.ir import dtypes
from aisc.ir.graph.core import AttrValue, Value
from aisc.ir.types import TensorType


class Chain:
    """Puts nodes one after the other; after one that is refused nothing more is put."""

    def __init__(self, m: Maker) -> None:
        self.m = m

    def __call__(self, op: str, *operands: object, **attrs: AttrValue) -> Value | None:
        """The result of a node, ``None`` when an operand is ``None`` or the node is refused."""
        if any(x is None for x in operands):
            return None
        return self.m.put(op, list(operands), attrs)  # type: ignore[arg-type]


def _float(m: Maker, rank: int) -> Value | None:
    """A value of a float type and a rank."""
    found = m.pick(lambda t: t.dtype.is_float and t.rank == rank and 0 not in t.shape)
    if found is not None or m.is_region:
        return found
    dtype = m.rng.choice([dtypes.f32, dtypes.f32, dtypes.f32, dtypes.f16, dtypes.f64])
    return m.input(TensorType(m.shape(rank, rank), dtype), m.fill())


def _scalar(m: Maker, like: Value, number: float) -> Value:
    return _constant(m, np.array(number), like)


def _constant(m: Maker, array: np.ndarray, like: Value) -> Value:
    data = array.astype(like.type.dtype.numpy)
    value = m.builder.constant(data)
    m.held[value] = data
    return value


def attention(m: Maker) -> None:
    """``softmax(q k^T * s + mask) v``, with batches, and masks of several kinds."""
    batch: list[object] = [m.size() for _ in range(m.rng.randint(0, 2))]
    queries, keys = m.size(), m.size()
    depth, width = m.static_size(), m.static_size()
    t, put = m.rng.choice([dtypes.f32, dtypes.f32, dtypes.f16]), Chain(m)
    shapes = ((*batch, queries, depth), (*batch, depth, keys), (*batch, keys, width))
    if any(m.elements(s) > 2048 for s in shapes):  # type: ignore[arg-type]
        return
    if m.is_region:
        return
    q, k, v = (m.input(TensorType(s, t), m.fill()) for s in shapes)  # type: ignore[arg-type]
    scores = put("matmul", q, k)
    if scores is not None and m.chance(0.6):
        scores = put("mul", scores, _scalar(m, scores, 0.35))
    if scores is not None and m.chance(0.5):
        scores = _masked(m, scores)
    weights = put("softmax", scores, axis=-1)
    result = put("matmul", weights, v)
    if result is not None and m.chance(0.4):
        put(
            "transpose", result, perm=tuple(m.rng.sample(range(result.type.rank), result.type.rank))
        )


def _masked(m: Maker, scores: Value) -> Value | None:
    shape, t = scores.type.shape[-2:], scores.type.dtype
    if m.chance(0.5):
        return m.put("add", (scores, m.fresh(shape, t)))
    low = _scalar(m, scores, m.rng.choice([-np.inf, -1e4]))
    return m.put("where", (m.fresh(shape, dtypes.boolean), scores, low))


def convolution(m: Maker) -> None:
    """A convolution, then what batch normalisation leaves, an activation, a pool."""
    from aisc.fuzz.proposals import propose

    found = propose(m, "conv")
    y = None if found is None else m.put("conv", *found)
    put = Chain(m)
    if y is None:
        return
    last = found is not None and found[1]["data_layout"] == "NHWC"
    channels = y.type.shape[-1 if last else 1]
    spread = (channels,) if last else (channels, *(1 for _ in y.type.shape[2:]))
    t = y.type.dtype
    for op in ("mul", "add"):
        if y is not None and m.chance(0.5):
            y = m.put(op, (y, m.fresh(spread, t)))
    if y is not None and t.is_float:
        y = put(m.rng.choice(["relu", "sigmoid", "hard_swish", "silu", "clip"]), y)
    if y is not None and m.chance(0.4) and t.is_float:
        spatial = y.type.rank - 2
        kernel = tuple(m.rng.randint(1, 2) for _ in range(spatial))
        layout = "NHWC" if last else "NCHW"
        op = m.rng.choice(["max_pool", "avg_pool"])
        put(op, y, kernel_shape=kernel, data_layout=layout)


def perceptron(m: Maker) -> None:
    """Matrix products with bias and activation between them, and a residual."""
    x, put = _float(m, 2), Chain(m)
    for _ in range(m.rng.randint(1, 3)):
        if x is None:
            return
        inner, width = x.type.shape[-1], m.static_size()
        if m.chance(0.3) and isinstance(inner, int):
            width = inner
        y = m.put("matmul", (x, m.fresh((inner, width), x.type.dtype, None)))
        if y is not None and m.chance(0.6):
            y = m.put("add", (y, m.fresh((width,), x.type.dtype)))
        y = put(m.rng.choice(["relu", "gelu", "tanh", "sigmoid", "silu", "softplus"]), y)
        if y is not None and y.type == x.type and m.chance(0.5):
            y = put("add", x, y)
        x = y


def normal_rows(m: Maker) -> None:
    """A normalisation written out: mean, difference, variance, quotient, scale."""
    x, put = _float(m, m.rng.choice([1, 2, 3])), Chain(m)
    if x is None:
        return
    axes: AttrValue = (-1,)
    mean = put("reduce_mean", x, axes=axes, keepdims=True)
    centred = put("sub", x, mean)
    squares = put("mul", centred, centred)
    variance = put("reduce_mean", squares, axes=axes, keepdims=True)
    if variance is None:
        return
    spread = put("sqrt", put("add", variance, _scalar(m, variance, 1e-3)))
    y = put("div", centred, spread)
    if y is not None and m.chance(0.6):
        m.put("mul", (y, m.fresh(x.type.shape[-1:], x.type.dtype)))


def quantized(m: Maker) -> None:
    """Numbers to int8 and back, or through a product of integers."""
    x, put = _float(m, 2), Chain(m)
    if x is None:
        return
    scale = _scalar(m, x, m.rng.choice([0.05, 0.11]))
    small = put("clip", put("round", put("div", x, scale)), min=-128.0, max=127.0)
    if m.style == "special":  # what NaN becomes is not defined alike on all levels
        return
    q = put("cast", small, to=dtypes.i8)
    if q is None:
        return
    if m.chance(0.5):
        wide = put("cast", q, to=dtypes.i32)
        if wide is None:
            return
        w = m.fresh((wide.type.shape[-1], m.static_size()), dtypes.i32, Fill("whole"))
        q = m.put("matmul", (wide, w))
    back = put("cast", q, to=x.type.dtype)
    put("mul", back, scale)


def twins(m: Maker) -> None:
    """Reads of one value in several orders, joined again."""
    x, put = _float(m, 2), Chain(m)
    if x is None:
        return
    turned = put("transpose", x, perm=(1, 0))
    a = put(m.rng.choice(["neg", "abs", "exp", "relu"]), turned)
    b = put("transpose", a, perm=(1, 0))
    put(m.rng.choice(["add", "mul", "max", "sub"]), b, x)


def softmax_parts(m: Maker) -> None:
    """A softmax written out, over any axis."""
    x, put = _float(m, m.rng.choice([1, 2, 3])), Chain(m)
    if x is None:
        return
    axes = (m.rng.randrange(x.type.rank),)
    shifted = put("sub", x, put("reduce_max", x, axes=axes, keepdims=True))
    powers = put("exp", shifted)
    put("div", powers, put("reduce_sum", powers, axes=axes, keepdims=True))


def identities(m: Maker) -> None:
    """Operands that rules look for: ones, zeros, powers, the same thing twice."""
    x, put = m.pick(lambda t: t.dtype.kind != "bool"), Chain(m)
    if x is None:
        return
    t = x.type.dtype
    op, number = m.rng.choice(
        [("mul", 1), ("div", 1), ("add", 0), ("sub", 0), ("pow", 2), ("pow", 3), ("mul", 0)]
    )
    if op == "pow" and not t.is_float:
        return
    y = put(op, x, _scalar(m, x, number))
    same = [o for o in ("relu", "neg", "abs") if t.is_float]
    if y is not None and same and m.chance(0.5):
        again = m.rng.choice(same)
        put(again, put(again, y))


PATTERNS: Sequence[Callable[[Maker], None]] = (
    attention, convolution, perceptron, normal_rows, quantized, twins, softmax_parts, identities,
)  # fmt: skip
