"""Chains of nodes as models have them, which chance alone would hardly make: what passes and rules
of schedules look for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from aisc.fuzz.maker import Fresh, Maker
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
        # A scale moves into the weights, which is another order where there are infinities.
        if y is not None and m.chance(0.5) and m.style != "special":
            known = Fresh(TensorType(spread, t), m.fill(), True if m.chance(0.7) else None)
            y = m.put(op, (y, known))
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


NEUTRAL = (
    ("mul", 1), ("div", 1), ("add", 0), ("sub", 0), ("mul", 0), ("add", 1), ("sub", 1), ("mul", -1),
)  # fmt: skip


def neutral(m: Maker) -> None:
    """Operands that rules look for: ones, zeros, and others that are none of them."""
    x, put = m.pick(lambda t: t.dtype.kind != "bool"), Chain(m)
    if x is None:
        return
    op, number = m.rng.choice(NEUTRAL)
    if number >= 0 or x.type.dtype.kind != "uint":
        put(op, x, _scalar(m, x, number))
    if x.type.dtype.is_float and m.chance(0.3):
        put("pow", x, _scalar(m, x, m.rng.choice([1, 2, 3, 4])))


def twice(m: Maker) -> None:
    """One operator on its own result, or one of another kind between two equal ones."""
    x, put = _float(m, m.rng.choice([1, 2, 3])), Chain(m)
    first = m.rng.choice(["relu", "relu", "neg", "abs", "floor", "sign", "ceil"])
    y = put(first, x)
    if m.chance(0.3):
        y = put(m.rng.choice(["neg", "abs", "relu"]), y)
    put(first, y)


def known_choice(m: Maker) -> None:
    """A choice by a constant that is the same everywhere, or nearly."""
    x = m.pick()
    if x is None or not x.type.is_static:
        return
    shape = x.type.static_shape if m.chance(0.5) else ()
    flags = np.full(shape, m.chance(0.5))
    if flags.size and m.chance(0.3):
        flags.reshape(-1)[0] = not flags.reshape(-1)[0]
    cond = m.builder.constant(flags)
    m.held[cond] = flags
    m.put("where", (cond, x, m.fresh(x.type.shape, x.type.dtype)))


def siblings(m: Maker) -> None:
    """One operator on one value under several attributes."""
    from aisc.fuzz.proposals import EXCLUDED, propose
    from aisc.ir.graph import opdef

    several = [o.name for o in opdef.all_ops() if o.attrs and len(o.inputs) == 1]
    name = m.rng.choice([n for n in several if n not in EXCLUDED])
    found = propose(m, name)
    if found is None:
        return
    if m.put_all(name, *found) is None:
        return
    operands = m.builder.nodes[-1].inputs
    for _ in range(6):
        other = propose(m, name)
        if other is not None and m.put_all(name, operands, other[1]) is not None:
            return


def moves(m: Maker) -> None:
    """Movements one after the other, which rules join."""
    from aisc.fuzz.proposals import propose

    x = m.pick(lambda t: t.rank > 1) if m.chance(0.7) else _float(m, m.rng.choice([3, 4]))
    if m.chance(0.3) and not m.is_region:  # axes that shapes do not tell apart
        shape = (m.rng.randint(2, 4),) * m.rng.choice([3, 3, 4])
        x = m.input(TensorType(shape, m.dtype()), m.fill())
    names = ["transpose"] * 3 + ["reshape"] * 2 + ["slice", "slice", "pad", "expand", "concat"]
    only = m.rng.choice([None, None, "transpose", "reshape", "slice"])
    for _ in range(m.rng.randint(2, 4)):
        if x is None:
            return
        name = only or m.rng.choice(names)
        y = None
        for _ in range(4):
            if y is None:
                _, attrs = _about(m, name, x) or propose(m, name) or ((), {})
                y = m.put(name, (x,), attrs)
        x = y if y is not None else x


def _about(m: Maker, name: str, x: Value) -> tuple[tuple[Value], dict[str, AttrValue]] | None:
    """Attributes of a movement for one value."""
    from aisc.fuzz import proposals

    rank = x.type.rank
    if name == "transpose":
        return (x,), {"perm": tuple(m.rng.sample(range(rank), rank))}
    if name == "reshape":
        return (x,), {"shape": proposals.regrouped(m, x.type.shape)}
    if name == "slice":
        cuts = [proposals.cut(m, d) for d in x.type.shape]
        starts, ends, steps = (tuple(c[k] for c in cuts) for k in range(3))
        return (x,), {"starts": starts, "ends": ends, "steps": steps}
    if name == "pad":
        return (x,), {"pads": tuple(m.rng.choice([0, 0, 1, -1]) for _ in range(2 * rank))}
    return None


PATTERNS: Sequence[Callable[[Maker], None]] = (
    attention, convolution, convolution, perceptron, normal_rows, quantized, twins, softmax_parts,
    neutral, twice, known_choice, siblings, moves, moves,
)  # fmt: skip
