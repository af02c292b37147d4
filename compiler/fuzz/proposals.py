"""Operands for each operator: from the registry, by operand and kind, and by name where operands
must fit each other in a way that chance hardly finds. The type rules decide what is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aisc.fuzz import attributes
from aisc.fuzz.maker import Fresh, Maker, Operands
from aisc.fuzz.values import Fill, generator
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, Poly, product
from aisc.ir.dtypes import DType
from aisc.ir.graph import opdef
from aisc.ir.graph.core import AttrValue, Value
from aisc.ir.graph.ops.widening import SHORT_FLOATS
from aisc.ir.types import TensorType

Proposal = tuple[Operands, dict[str, AttrValue]]
Operand = Value | Fresh
INDEX_TYPES = (dtypes.i64, dtypes.i64, dtypes.i32)
# Operators that are not proposed, each with its reason.
EXCLUDED = {
    "constant": "made for operands",
    "fused": "made by a pass",
    "index": "its formula is of one element type, and the screen widens types",
    "if": "made with its regions", "loop": "made with its region",
    "bind_dims": "made with the sizes that it binds", "true_places": "its size is that of the data",
    "expect": "ends the run where its condition does not hold",
    "unique": "runs on the host, through its reference",
    "non_max_suppression": "runs on the host, through its reference",
}  # fmt: skip


def propose(m: Maker, name: str) -> Proposal | None:
    """Operands and attributes for an operator, which its type rule may still refuse."""
    return SPECIFIC.get(name, _general)(m, name)


def _general(m: Maker, name: str) -> Proposal | None:
    op = opdef.get(name)
    if not op.inputs:
        return (), attributes.proposed(m, op, None)
    first = m.some(lambda t: _takes(name, t), _least_rank(name))
    operands: list[Operand | None] = [first]
    for operand in op.inputs[1:]:
        if operand.optional and m.chance(0.5):
            operands.append(None)
        else:
            operands.append(partner(m, first))
    m.rng.shuffle(operands) if len(operands) == 2 and None not in operands else None
    return operands, attributes.proposed(m, op, first.type)


def _takes(name: str, t: DType) -> bool:
    """Whether an operator may take an element type, as far as a scalar of it tells."""
    op = opdef.get(name)
    if op.kind != "map" or not op.inputs or len(op.inputs) > 2 or name == "cast":
        return True
    scalar = TensorType((), t)
    attrs = {a.name: a.default for a in op.attrs}
    try:
        op.infer(opdef.OpCall(op, (scalar,) * len(op.inputs), attrs))
    except Exception:
        return False
    return True


def _least_rank(name: str) -> int:
    return 1 if opdef.get(name).kind == "reduction" else 0


def partner(m: Maker, x: Operand, dtype: DType | None = None) -> Operand:
    """Something that broadcasts with a value: itself seldom, one of its shape, or fewer axes."""
    t = dtype or x.type.dtype

    def fits(other: TensorType) -> bool:
        return other.dtype is t and _broadcast(other.shape, x.type.shape)

    found = m.pick(fits) if m.chance(0.7) else None
    return found if found is not None else m.fresh(_narrower(m, x.type.shape), t)


def _broadcast(a: Sequence[Dim], b: Sequence[Dim]) -> bool:
    pairs = zip(reversed(a), reversed(b), strict=False)
    return all(x == y or x == 1 or y == 1 for x, y in pairs)


def _narrower(m: Maker, shape: Sequence[Dim]) -> tuple[Dim, ...]:
    """A shape that broadcasts to another: axes in front left out, others 1."""
    cut = m.rng.randint(0, len(shape)) if m.chance(0.4) else 0
    kept = tuple(1 if m.chance(0.25) else d for d in shape[cut:])
    wider = m.chance(0.1) and len(kept) == len(shape) < 4
    return (m.static_size(), *kept) if wider else kept


def _number(t: DType) -> bool:
    return t.kind != "bool"


def _float(t: DType) -> bool:
    return t.is_float


def _axis(m: Maker, x: Operand) -> int:
    return m.rng.randrange(x.type.rank)


def _signed(m: Maker, axis: int, rank: int) -> int:
    return axis - rank if m.chance(0.3) else axis


# -- sizes ---------------------------------------------------------------------------------------
def _assume(m: Maker, name: str) -> Proposal:
    x = m.some()
    return (x,), {"shape": x.type.shape, "least": (0,) * x.type.rank if m.chance(0.5) else ()}


def _within(m: Maker, name: str) -> Proposal:
    size = m.rng.randint(1, 9)
    array = generator(m.rng).integers(0, size, tuple(m.static_size() for _ in range(2)))
    values = m.builder.constant(array)
    m.held[values] = array
    return (values,), {"size": (size,)}


# -- maps ----------------------------------------------------------------------------------------
def _where(m: Maker, name: str) -> Proposal:
    x = m.some()
    return (partner(m, x, dtypes.boolean), x, partner(m, x)), {}


def _shift(m: Maker, name: str) -> Proposal:
    x = m.some(lambda t: t.is_integer)
    shape = _narrower(m, x.type.shape)
    return (x, m.fresh(shape, x.type.dtype, Fill("whole", index=min(x.type.dtype.bits, 8)))), {}


def _quotient(m: Maker, name: str) -> Proposal | None:
    """Whole numbers are not divided by zero, which compiled code refuses."""
    x = m.some(lambda t: _takes(name, t))
    if x.type.dtype.is_float and name == "fmod" and m.style == "special":
        return None  # compiled code is wrong where the quotient has no exact float64
    if x.type.dtype.is_float:
        return (x, partner(m, x)), {}
    return (x, m.fresh(_narrower(m, x.type.shape), x.type.dtype, m.fill(positive=True))), {}


def _cast(m: Maker, name: str) -> Proposal:
    """Numbers that fit: what others become is not defined alike on all levels."""
    return (m.some(),), {"to": m.dtype()}


def _bitcast(m: Maker, name: str) -> Proposal:
    x = m.some()
    same = [t for t in dtypes.ALL if t.bits == x.type.dtype.bits]
    return (x,), {"to": m.rng.choice(same)}


def _quantization(m: Maker, name: str) -> Proposal:
    """A scale for the whole tensor or along an axis, and a zero point like it or none."""
    back = name == "dequantize"
    x = m.some(lambda t: t.is_integer and t.bits <= 32 if back else t.is_float)
    to = x.type.dtype if back else m.rng.choice([t for t in dtypes.ALL if _is_short(t)])
    scale = m.rng.choice([dtypes.f32, dtypes.f64]) if back else x.type.dtype
    axis = _axis(m, x) if x.type.rank else 1
    shape = (x.type.shape[axis],) if x.type.rank and m.chance(0.5) else ()
    zero = m.fresh(shape, to) if m.chance(0.6) else None
    attrs: dict[str, AttrValue] = {"axis": axis} if back else {"axis": axis, "to": to}
    return (x, m.fresh(shape, scale, m.fill(positive=True)), zero), attrs


def _stored(m: Maker, name: str) -> Proposal:
    """Weights in few bits, with scales for blocks of rows; or floats of 16 bits."""
    bits, columns = m.rng.choice([0, 2, 4, 8]), m.rng.randint(1, 9)
    if not bits:
        return (m.fresh((m.rng.randint(1, 9), columns), m.rng.choice(SHORT_FLOATS)),), {}
    rows, block = m.rng.randint(1, 20), m.rng.choice([0, 3, 4])
    shape = (-(-rows // (block or rows)), columns)
    codes = m.fresh((-(-rows * bits // 8), columns), dtypes.i8)
    zero = m.fresh(shape, dtypes.i8) if m.chance(0.5) else None
    scale = m.fresh(shape, dtypes.f32, m.fill(positive=True))
    return (codes, scale, zero), {"bits": bits, "block": block, "rows": rows}


def _is_short(t: DType) -> bool:
    return t.is_integer and t.bits <= 16


# -- movements -----------------------------------------------------------------------------------
def _concat(m: Maker, name: str) -> Proposal:
    x = m.some(rank=1)
    axis, parts = _axis(m, x), [x]
    for _ in range(m.rng.randint(0, 2)):
        shape = [*x.type.shape]
        shape[axis] = m.static_size()
        found = m.pick(lambda t: t.dtype is x.type.dtype and _joins(t, x.type, axis))
        fresh = found is None or m.chance(0.4)
        parts.append(m.fresh(shape, x.type.dtype) if fresh or found is None else found)
    m.rng.shuffle(parts)
    return parts, {"axis": _signed(m, axis, x.type.rank)}


def _joins(a: TensorType, b: TensorType, axis: int) -> bool:
    pairs = enumerate(zip(a.shape, b.shape, strict=False))
    return a.rank == b.rank and all(x == y for k, (x, y) in pairs if k != axis)


def _slice(m: Maker, name: str) -> Proposal:
    x = m.some(rank=1)
    cuts = [cut(m, d) for d in x.type.shape]
    starts, ends, steps = (tuple(c[k] for c in cuts) for k in range(3))
    return (x,), {"starts": starts, "ends": ends, "steps": steps}


def cut(m: Maker, d: Dim) -> tuple[Dim, Dim, int]:
    """(start, end, step) within an axis."""
    if m.chance(0.4) or d == 0:
        return 0, d, 1
    if isinstance(d, Poly):
        return (d - 1, -1, -1) if m.chance(0.5) else (0, d, m.rng.choice([1, 2, 3]))
    low, high = sorted((m.rng.randint(0, d), m.rng.randint(0, d)))
    if m.chance(0.25) and high > low:
        return high - 1, low - 1, -m.rng.choice([1, 1, 2, 3])
    return low, high, m.rng.choice([1, 1, 1, 2, 3])


def _expand(m: Maker, name: str) -> Proposal:
    x = m.some()
    shape = tuple(m.size() if d == 1 else d for d in x.type.shape)
    more = m.shape(0, 1) if x.type.rank < 4 else ()
    return (x,), {"shape": (*more, *shape)}


def _reshape(m: Maker, name: str) -> Proposal:
    x = m.some()
    return (x,), {"shape": regrouped(m, x.type.shape)}


def regrouped(m: Maker, shape: Sequence[Dim]) -> tuple[Dim, ...]:
    """The same elements: axes joined, split, moved between neighbours, axes of size 1 added."""
    dims = list(shape)
    for _ in range(m.rng.randint(1, 3)):
        k = m.rng.randrange(len(dims) + 1)
        move = m.rng.randrange(4)
        if move == 0 and k + 1 < len(dims):
            dims[k : k + 2] = [product((dims[k], dims[k + 1]))]
        elif move == 1 and k < len(dims):
            d = dims[k]
            parts = [f for f in (2, 3, 4, 5) if isinstance(d, int) and d and d % f == 0]
            if parts and isinstance(d, int):
                f = m.rng.choice(parts)
                dims[k : k + 1] = [f, d // f] if m.chance(0.5) else [d // f, f]
        elif move == 2 and len(dims) < 5:
            dims.insert(k, 1)
        elif move == 3 and k < len(dims) and dims[k] == 1:
            dims.pop(k)
    return tuple(dims)


def _pad(m: Maker, name: str) -> Proposal:
    x = m.some(rank=1)
    attrs = attributes.proposed(m, opdef.get("pad"), x.type)
    value = m.fresh((), x.type.dtype) if m.chance(0.4) else None
    return (x, value), attrs


def _one_hot(m: Maker, name: str) -> Proposal:
    depth = m.static_size()
    x = m.pick(lambda t: t.dtype.is_integer and t.rank < 4)
    new = m.fresh(m.shape(0, 3), m.rng.choice(INDEX_TYPES), Fill(index=depth + 1))
    operand = new if x is None or m.chance(0.7) else x
    return (operand,), {"depth": (depth,), "axis": m.rng.randint(-1, operand.type.rank)}


def _sample(m: Maker, name: str) -> Proposal:
    x = m.some(rank=1)
    attrs = attributes.proposed(m, opdef.get("sample"), x.type)
    attrs.update(size=(m.static_size(),), add=m.rng.randint(-5, 5), multiply=m.rng.randint(-2, 4))
    return (x,), attrs


def _iota(m: Maker, name: str) -> Proposal:
    dtype = m.rng.choice([t for t in dtypes.ALL if t.kind != "bool"])
    return (), {"shape": (m.size(),), "dtype": dtype}


def _sizes(m: Maker, name: str) -> Proposal:
    return (), {"values": tuple(m.size() for _ in range(m.rng.randint(1, 4)))}


# -- indices -------------------------------------------------------------------------------------
def _indices(m: Maker, shape: Sequence[Dim], size: Dim) -> Fresh:
    return m.fresh(shape, m.rng.choice(INDEX_TYPES), Fill(index=size))


def _gather(m: Maker, name: str) -> Proposal:
    x = m.some(rank=1)
    axis = _axis(m, x)
    return (x, _indices(m, m.shape(0, 2), x.type.shape[axis])), {
        "axis": _signed(m, axis, x.type.rank)
    }


def _elements_shape(m: Maker, x: Operand, axis: int) -> tuple[Dim, ...]:
    """A shape of indices: no larger than the data on other axes than `axis`."""
    return tuple(
        m.size() if k == axis else m.rng.randint(1, d) if isinstance(d, int) and d > 0 else d
        for k, d in enumerate(x.type.shape)
    )


def _gather_elements(m: Maker, name: str) -> Proposal:
    x = m.some(rank=1)
    axis = _axis(m, x)
    return (x, _indices(m, _elements_shape(m, x, axis), x.type.shape[axis])), {"axis": axis}


def _scatter_elements(m: Maker, name: str) -> Proposal:
    x = m.some(rank=1)
    axis = _axis(m, x)
    shape = _elements_shape(m, x, axis)
    reduction = m.rng.choice(["none", "add", "mul", "max", "min"])
    operands = x, _indices(m, shape, x.type.shape[axis]), m.fresh(shape, x.type.dtype)
    return operands, {"axis": axis, "reduction": reduction}


def _nd_indices(m: Maker, x: Operand, batch: int) -> tuple[Fresh, int]:
    depth = m.rng.randint(1, x.type.rank - batch)
    least = min((d for d in x.type.shape[batch : batch + depth]), key=m.value_of)
    static = all(isinstance(d, int) for d in x.type.shape[batch : batch + depth])
    index = least if static else 1
    shape = (*x.type.shape[:batch], *m.shape(0, 2), depth)
    return _indices(m, shape, index), depth


def _gather_nd(m: Maker, name: str) -> Proposal:
    x = m.some(rank=1)
    batch = m.rng.randint(0, x.type.rank - 1) if m.chance(0.4) else 0
    indices, _ = _nd_indices(m, x, batch)
    return (x, indices), {"batch_dims": batch}


def _scatter_nd(m: Maker, name: str) -> Proposal:
    x = m.some(rank=1)
    indices, depth = _nd_indices(m, x, 0)
    shape = (*indices.type.shape[:-1], *x.type.shape[depth:])
    reduction = m.rng.choice(["none", "add", "mul", "max", "min"])
    return (x, indices, m.fresh(shape, x.type.dtype)), {"reduction": reduction}


def _top_k(m: Maker, name: str) -> Proposal:
    x = m.some(_number, rank=1)
    axis = _axis(m, x)
    size = x.type.shape[axis]
    k = m.rng.randint(0, min(size, 6)) if isinstance(size, int) else 0
    return (x,), {"k": (k,), "axis": axis, "largest": m.chance(0.5)}


# -- contractions, windows, norms ------------------------------------------------------------------
def _matmul(m: Maker, name: str) -> Proposal:
    x = m.some(_number, rank=1)
    inner = x.type.shape[-1]
    found = m.pick(lambda t: t.dtype is x.type.dtype and t.rank > 1 and t.shape[-2] == inner)
    if found is not None and m.chance(0.4):
        return (x, found), {}
    lead = x.type.shape[:-2] if m.chance(0.3) else ()
    columns = () if m.chance(0.1) and not lead else (m.static_size(),)
    return (x, m.fresh((*lead, inner, *columns), x.type.dtype)), {}


def _image(m: Maker, accepts: Callable[[DType], bool], last: bool) -> Operand:
    found = m.pick(lambda t: accepts(t.dtype) and t.rank in (3, 4) and 0 not in t.shape)
    if found is not None and m.chance(0.5):
        return found
    channels, spatial = m.rng.choice([1, 2, 3, 4, 6, 8]), m.rng.choice([1, 2, 2, 2])
    places = [m.rng.randint(1, 9) for _ in range(spatial)]
    batch: Dim = m.rng.choice([1, 1, 2, *m.symbols])
    shape = (batch, *places, channels) if last else (batch, channels, *places)
    dtype = m.dtype()
    return m.fresh(shape, dtype if accepts(dtype) else dtypes.f32)


def _geometry(m: Maker, spatial: int) -> dict[str, AttrValue]:
    found: dict[str, AttrValue] = {}
    if m.chance(0.4):
        found["strides"] = tuple(m.rng.randint(1, 3) for _ in range(spatial))
    if m.chance(0.5):
        found["pads"] = tuple(m.rng.randint(0, 2) for _ in range(2 * spatial))
    if m.chance(0.2):
        found["dilations"] = tuple(m.rng.randint(1, 2) for _ in range(spatial))
    return found


def _conv(m: Maker, name: str) -> Proposal | None:
    last = m.chance(0.5)
    x = _image(m, _number, last)
    shape, spatial = x.type.shape, x.type.rank - 2
    channels = shape[-1 if last else 1]
    if not isinstance(channels, int):
        return None
    group = m.rng.choice([g for g in range(1, channels + 1) if channels % g == 0])
    if m.chance(0.5):
        group = 1
    outputs = group * m.rng.choice([1, 1, 2, 3, 4])
    kernel = tuple(m.rng.randint(1, 3) for _ in range(spatial))
    inner = channels // group
    w = (*kernel, inner, outputs) if last else (outputs, inner, *kernel)
    constant = True if m.chance(0.7) else None
    bias = Fresh(TensorType((outputs,), x.type.dtype), m.fill(), constant)
    layout = "NHWC" if last else "NCHW"
    weight = Fresh(TensorType(w, x.type.dtype), m.fill(), constant)
    return (x, weight, bias if m.chance(0.5) else None), {
        **_geometry(m, spatial),
        "group": group,
        "data_layout": layout,
    }


def _conv_transpose(m: Maker, name: str) -> Proposal | None:
    if m.style == "special":  # its decomposition multiplies zeros, which makes NaN of infinities
        return None
    x = _image(m, _float, False)
    channels, spatial = x.type.shape[1], x.type.rank - 2
    if not isinstance(channels, int):
        return None
    group = m.rng.choice([g for g in (1, 2, channels) if channels % g == 0])
    each = m.rng.randint(1, 3)
    kernel = tuple(m.rng.randint(1, 3) for _ in range(spatial))
    bias = m.fresh((each * group,), x.type.dtype) if m.chance(0.5) else None
    weight = m.fresh((channels, each, *kernel), x.type.dtype)
    return (x, weight, bias), {**_geometry(m, spatial), "group": group}


def _pool(m: Maker, name: str) -> Proposal:
    last = m.chance(0.5)
    x = _image(m, _number if name == "max_pool" else _float, last)
    spatial = x.type.rank - 2
    attrs = {**_geometry(m, spatial), "data_layout": "NHWC" if last else "NCHW"}
    attrs["kernel_shape"] = tuple(m.rng.randint(1, 3) for _ in range(spatial))
    attrs["ceil_mode"] = m.chance(0.3)
    if name == "avg_pool":
        attrs["count_include_pad"] = m.chance(0.5)
    if name == "lp_pool":
        attrs["p"] = m.rng.randint(1, 3)
    return (x,), attrs


def _batch_norm(m: Maker, name: str) -> Proposal:
    x = m.some(_float, rank=2)
    t, shape = x.type.dtype, (x.type.shape[1],)
    plain = [m.fresh(shape, t) for _ in range(3)]
    return (x, *plain, m.fresh(shape, t, m.fill(positive=True))), {"axis": 1}


def _row_norm(m: Maker, name: str) -> Proposal:
    x = m.some(_float, rank=1)
    axis = _axis(m, x)
    shape, t = x.type.shape[axis:], x.type.dtype
    operands: list[Operand | None] = [x, m.fresh(shape, t) if m.chance(0.6) else None]
    if name == "layer_norm":
        operands.append(m.fresh(shape, t) if m.chance(0.5) else None)
    return operands, {"axis": axis, "epsilon": m.rng.choice([1e-5, 1e-2])}


def _group_norm(m: Maker, name: str) -> Proposal | None:
    x = m.some(_float, rank=3)
    channels = x.type.shape[1]
    if not isinstance(channels, int) or not channels:
        return None
    groups = m.rng.choice([g for g in range(1, channels + 1) if channels % g == 0])
    scale, bias = (m.fresh((channels,), x.type.dtype) for _ in range(2))
    return (x, scale, bias), {"groups": groups, "axis": 1}


SPECIFIC: dict[str, Callable[[Maker, str], Proposal | None]] = {
    "assume": _assume, "within": _within,
    "where": _where, "shift_left": _shift, "shift_right": _shift,
    "div": _quotient, "mod": _quotient, "fmod": _quotient, "cast": _cast,
    "dequantize": _quantization, "quantize": _quantization, "widen": _stored,
    "bitcast": _bitcast, "concat": _concat, "slice": _slice, "expand": _expand,
    "reshape": _reshape, "pad": _pad, "one_hot": _one_hot, "sample": _sample, "iota": _iota,
    "sizes": _sizes, "gather": _gather, "gather_elements": _gather_elements,
    "scatter_elements": _scatter_elements, "gather_nd": _gather_nd, "scatter_nd": _scatter_nd,
    "top_k": _top_k, "matmul": _matmul, "conv": _conv, "conv_transpose": _conv_transpose,
    "max_pool": _pool, "avg_pool": _pool, "lp_pool": _pool, "batch_norm": _batch_norm,
    "layer_norm": _row_norm, "rms_norm": _row_norm, "group_norm": _group_norm,
}  # fmt: skip
