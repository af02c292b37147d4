"""Operators that only rearrange elements by affine maps: reshape, transpose, slice and kin."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aisc.ir.arith.poly import (
    Dim,
    bounds,
    ceildiv,
    difference,
    maximum,
    minimum,
    product,
    symbols,
)
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
from aisc.ir.graph.shapes import infer
from aisc.ir.graph.shapes.checks import decide, no_size_below_zero, require
from aisc.ir.tensor import expr as e
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Expr, Load, Var
from aisc.ir.tensor.func import Buffer, row_major
from aisc.ir.types import TensorType

X = (Operand("x"),)
Ins = Sequence[Buffer | None]
Outs = Sequence[Buffer]


def only(ins: Ins) -> Buffer:
    """The first operand's buffer."""
    assert ins[0] is not None, "a required operand is absent"
    return ins[0]


def sizes(dims: Sequence[Dim]) -> tuple[int, ...]:
    """Dimensions that a reference sees: all static by then."""
    found = tuple(d for d in dims if isinstance(d, int))
    assert len(found) == len(dims), "a reference needs static sizes"
    return found


# --- reshape ----------------------------------------------------------------------------------
def _reshape_rule(call: OpCall) -> tuple[TensorType, ...]:
    x, shape = call.type(0), tuple(call.attrs["shape"])
    no_size_below_zero(call, shape)
    wanted = ", ".join(map(str, shape))
    require(call, "==", x.size, product(shape), f"the elements of {x} as [{wanted}]")
    return (TensorType(shape, x.dtype),)


def _groups(a: Sequence[Dim], b: Sequence[Dim]) -> list[tuple[range, range]]:
    """Cut two shapes of one size into the shortest runs of axes that have equal sizes."""
    groups: list[tuple[range, range]] = []
    i = j = 0
    while i < len(a) and j < len(b):
        i_end, j_end = _run(a, b, i, j)
        groups.append((range(i, i_end), range(j, j_end)))
        i, j = i_end, j_end
    if i < len(a) or j < len(b):
        groups.append((range(i, len(a)), range(j, len(b))))
    return groups


def _run(a: Sequence[Dim], b: Sequence[Dim], i: int, j: int) -> tuple[int, int]:
    """Ends of the shortest runs from `i` and `j` with equal products; of all axes if none."""
    wanted: dict[Dim, int] = {}
    for j_end in range(j + 1, len(b) + 1):
        wanted.setdefault(product(tuple(b[j:j_end])), j_end)
    for i_end in range(i + 1, len(a) + 1):
        found = wanted.get(product(tuple(a[i:i_end])))
        if found is not None:
            return i_end, found
    return len(a), len(b)


def _delinearize(shape: Sequence[Dim], axes: range, linear: Expr) -> list[Expr]:
    strides = row_major(tuple(shape[k] for k in axes))
    index: list[Expr] = []
    for place, axis in enumerate(axes):
        part = linear // e.of_dim(strides[place])
        index.append(part if place == 0 else part % e.of_dim(shape[axis]))
    return index


def _reshape_compute(cb: ComputeBuilder, call: OpCall, ins: Ins, outs: Outs) -> None:
    x, (out,) = only(ins), outs
    groups = _groups(x.shape, out.shape)

    def value(*at: Var) -> Expr:
        index: list[Expr] = []
        for source, target in groups:
            if len(source) == 1 and len(target) == 1:
                index.append(at[target[0]])
                continue
            strides = row_major(tuple(out.shape[k] for k in target))
            linear: Expr = e.ZERO
            for k, s in zip(target, strides, strict=True):
                linear = linear + at[k] * e.of_dim(s)
            index.extend(_delinearize(x.shape, source, linear))
        return Load(x, tuple(index))

    cb.map(out, value, "reshape")


register(
    OpDef(
        "reshape",
        "The same elements in row-major order under another shape; whether it has as many is "
        "tested by the run where only that can tell.",
        X, _reshape_rule,
        lambda call, xs: [np.reshape(present(xs)[0], sizes(call.attrs["shape"]))],
        "movement", (Attr("shape", "dims"),),
        variants={"direct": Variant(_reshape_compute)}, traits=frozenset({"view"}),
    )
)  # fmt: skip


# --- assume -----------------------------------------------------------------------------------
def _assume_rule(call: OpCall) -> tuple[TensorType, ...]:
    x, shape = call.type(0), tuple(call.attrs["shape"])
    if len(shape) != x.rank or len(call.attrs["least"]) not in (0, x.rank):
        raise call.fail(f"{x} does not have {len(shape)} axes", code="E203")
    for axis, (d, wanted) in enumerate(zip(x.shape, shape, strict=True)):
        ones = _ones(d, wanted) if call.attrs["spread"] else ()
        require(call, "==", d, wanted, f"sizes of axis {axis}", ones)
        least = call.attrs["least"][axis] if call.attrs["least"] else 0
        require(call, "<=", least, wanted, f"the least size of axis {axis}")
    return (TensorType(shape, x.dtype),)


def _ones(*dims: Dim) -> tuple[str, ...]:
    """Sizes of inputs that, being 1, let another version of the model do."""
    names = {s.name for d in dims for s in symbols(d) if s.kind == "input"}
    return tuple(f"{name}=1" for name in sorted(names))


def _assume_compute(cb: ComputeBuilder, call: OpCall, ins: Ins, outs: Outs) -> None:
    x = only(ins)
    cb.map(outs[0], lambda *i: Load(x, i), "assume")


register(
    OpDef(
        "assume",
        "x, whose sizes are those of `shape`, and not below `least`: the run tests what is not "
        "known. With `spread` sizes of inputs that are 1 might be spread instead, in another "
        "version of the model.",
        X, _assume_rule, lambda call, xs: [present(xs)[0]],
        "movement", (Attr("shape", "dims"), Attr("spread", "bool", False),
         Attr("least", "ints", ())),
        variants={"direct": Variant(_assume_compute)}, traits=frozenset({"view"}),
    )
)  # fmt: skip


# --- bitcast ----------------------------------------------------------------------------------
def _bitcast_rule(call: OpCall) -> tuple[TensorType, ...]:
    x, to = call.type(0), call.attrs["to"]
    if x.dtype.bits != to.bits or (to.kind == "bool" and x.dtype is not to):
        raise call.fail(f"the bits of {x.dtype} are none of {to}")
    return (TensorType(x.shape, to),)


register(
    OpDef(
        "bitcast",
        "The same bits as elements of another type of the same width.",
        X, _bitcast_rule,
        lambda call, xs: [np.ascontiguousarray(present(xs)[0]).view(call.attrs["to"].numpy)
                          .reshape(present(xs)[0].shape)],
        "opaque", (Attr("to", "dtype"),), traits=frozenset({"view"}),
    )
)  # fmt: skip


# --- transpose --------------------------------------------------------------------------------
def _transpose_rule(call: OpCall) -> tuple[TensorType, ...]:
    x, perm = call.type(0), tuple(call.attrs["perm"])
    if sorted(perm) != list(range(x.rank)):
        raise call.fail(f"{perm} is no permutation of {x.rank} axes", code="E203")
    return (TensorType(tuple(x.shape[p] for p in perm), x.dtype),)


def _transpose_compute(cb: ComputeBuilder, call: OpCall, ins: Ins, outs: Outs) -> None:
    x, perm = only(ins), call.attrs["perm"]
    place = {p: k for k, p in enumerate(perm)}
    cb.map(outs[0], lambda *i: Load(x, tuple(i[place[a]] for a in range(len(i)))), "transpose")


register(
    OpDef(
        "transpose", "``out.shape[k] = x.shape[perm[k]]``.",
        X, _transpose_rule,
        lambda call, xs: [np.transpose(present(xs)[0], call.attrs["perm"])],
        "movement", (Attr("perm", "ints"),),
        variants={"direct": Variant(_transpose_compute)},
    )
)  # fmt: skip


# --- concat -----------------------------------------------------------------------------------
def _concat_rule(call: OpCall) -> tuple[TensorType, ...]:
    first = call.type(0)
    axis = infer.normal_axis(call, call.attrs["axis"], first.rank)
    t = infer.same_dtype(call, *range(len(call.types)))
    total: Dim = 0
    for index in range(len(call.types)):
        x = call.type(index)
        rest = x.shape[:axis] + x.shape[axis + 1 :]
        others = first.shape[:axis] + first.shape[axis + 1 :]
        if x.rank != first.rank or any(
            decide("==", a, b) is False for a, b in zip(rest, others, strict=False)
        ):
            raise call.fail(f"{x} and {first} differ outside axis {axis}")
        total = total + x.shape[axis]
    shape = [_common(call, k) for k in range(first.rank)]
    shape[axis] = total
    return (TensorType(tuple(shape), t),)


def _common(call: OpCall, axis: int) -> Dim:
    """The size that all operands have along an axis, as a number where one tells it."""
    found = dict.fromkeys(call.type(k).shape[axis] for k in range(len(call.types)))
    size = next((d for d in found if isinstance(d, int)), next(iter(found)))
    if axis != call.attrs["axis"] % call.type(0).rank:
        for d in found:
            require(call, "==", d, size, f"sizes of the parts along axis {axis}")
    return size


def _concat_compute(cb: ComputeBuilder, call: OpCall, ins: Ins, outs: Outs) -> None:
    (out,), parts = outs, [b for b in ins if b is not None]
    axis = call.attrs["axis"] % out.rank
    starts: list[Dim] = [0]
    for part in parts:
        starts.append(starts[-1] + part.shape[axis])

    def value(*i: Var) -> Expr:
        result: Expr | None = None
        for part, start, end in reversed(list(zip(parts, starts, starts[1:], strict=False))):
            load = Load(part, (*i[:axis], i[axis] - e.of_dim(start), *i[axis + 1 :]))
            before = e.binary("lt", i[axis], e.of_dim(end))
            result = load if result is None else e.select(before, load, result)
        assert result is not None, "concat without operands"
        return result

    cb.map(out, value, "concat")


register(
    OpDef(
        "concat", "The operands one after the other along `axis`.",
        (Operand("parts", variadic=True),), _concat_rule,
        lambda call, xs: [np.concatenate(present(xs), axis=call.attrs["axis"])],
        "movement", (Attr("axis", "int"),), variants={"direct": Variant(_concat_compute)},
    )
)  # fmt: skip


# --- slice ------------------------------------------------------------------------------------
def _slice_rule(call: OpCall) -> tuple[TensorType, ...]:
    x = call.type(0)
    starts, ends, steps = (tuple(call.attrs[k]) for k in ("starts", "ends", "steps"))
    if not len(starts) == len(ends) == len(steps) == x.rank or 0 in steps:
        raise call.fail(f"the slice does not fit {x}", code="E203")
    shape: list[Dim] = []
    for d, start, end, step in zip(x.shape, starts, ends, steps, strict=True):
        count = difference(end, start) if step > 0 else start - end
        size = ceildiv(count, abs(step))
        size = max(size, 0) if isinstance(size, int) else size
        if size != 0 and not _fits(d, start, size, step):
            raise call.fail(f"slice {start}:{end}:{step} leaves an axis of size {d}", code="E203")
        _require_inside(call, d, start, size, step)
        shape.append(size)
    return (TensorType(tuple(shape), x.dtype),)


def _fits(size: Dim, start: Dim, count: Dim, step: int) -> bool:
    last = start + (count - 1) * step
    low, high = (start, last) if step > 0 else (last, start)
    return bounds(low)[1] >= 0 and bounds(high - size)[0] < 0


def _require_inside(call: OpCall, size: Dim, start: Dim, count: Dim, step: int) -> None:
    """What is cut must lie inside, if there is something; its length is not negative."""
    last = start + (count - 1) * step
    low, high = (start, last) if step > 0 else (last, start)
    some = minimum(1, maximum(count, 0))
    require(call, "<=", 0, count, "the length of a slice")
    if bounds(low)[0] < 0:
        require(call, "<=", 0, some * low, "the first element of a slice")
    if bounds(size - 1 - high)[0] < 0:
        require(call, "<=", some * (high + 1), size, "the end of a slice and the axis")


def _slice_reference(call: OpCall, xs: Arrays) -> list[Array]:
    (x,) = present(xs)
    starts, ends = sizes(call.attrs["starts"]), sizes(call.attrs["ends"])
    cut = tuple(
        slice(a, None if b < 0 else b, s) if b != a else slice(0, 0)
        for a, b, s in zip(starts, ends, call.attrs["steps"], strict=True)
    )
    return [x[cut]]


def _slice_compute(cb: ComputeBuilder, call: OpCall, ins: Ins, outs: Outs) -> None:
    x, starts, steps = only(ins), call.attrs["starts"], call.attrs["steps"]

    def value(*i: Var) -> Expr:
        return Load(x, tuple(v * s + e.of_dim(a) for v, a, s in zip(i, starts, steps, strict=True)))

    cb.map(outs[0], value, "slice")


register(
    OpDef(
        "slice",
        "Elements ``start, start + step, ...`` before `end` along every axis. Starts and ends are "
        "positions from 0 (an end of -1 under a negative step means: down to the first).",
        X, _slice_rule, _slice_reference, "movement",
        (Attr("starts", "dims"), Attr("ends", "dims"), Attr("steps", "ints")),
        variants={"direct": Variant(_slice_compute)},
    )
)  # fmt: skip


# --- expand, tile, trilu ----------------------------------------------------------------------
def _expand_rule(call: OpCall) -> tuple[TensorType, ...]:
    x, shape = call.type(0), tuple(call.attrs["shape"])
    pairs = list(zip(x.shape, shape[len(shape) - x.rank :], strict=False))
    if x.rank > len(shape) or any(decide("1==", d, n) is False for d, n in pairs):
        raise call.fail(f"{x} does not broadcast to [{', '.join(map(str, shape))}]")
    no_size_below_zero(call, shape)
    for d, n in pairs:
        require(call, "1==", d, n, "a size and what it is expanded to", _ones(n))
    return (TensorType(shape, x.dtype),)


def _repeated(d: Dim, size: Dim, v: Var) -> Expr:
    """The place along an axis of size `d`, which is 1 or `size`."""
    if d == 1:
        return e.ZERO
    return v if d == size else e.minimum(v, e.of_dim(d) - 1)


def _expand_compute(cb: ComputeBuilder, call: OpCall, ins: Ins, outs: Outs) -> None:
    x, (out,) = only(ins), outs

    def value(*i: Var) -> Expr:
        tail, sizes_ = i[len(i) - x.rank :], out.shape[len(i) - x.rank :]
        return Load(x, tuple(map(_repeated, x.shape, sizes_, tail)))

    cb.map(out, value, "expand")


register(
    OpDef(
        "expand", "x broadcast to `shape`, as numpy.broadcast_to.",
        X, _expand_rule,
        lambda call, xs: [np.broadcast_to(present(xs)[0], sizes(call.attrs["shape"]))],
        "movement", (Attr("shape", "dims"),), variants={"direct": Variant(_expand_compute)},
    )
)  # fmt: skip


def _tile_rule(call: OpCall) -> tuple[TensorType, ...]:
    x, repeats = call.type(0), tuple(call.attrs["repeats"])
    if len(repeats) != x.rank:
        raise call.fail(f"{len(repeats)} repeats for {x}", code="E203")
    no_size_below_zero(call, repeats)
    return (TensorType(tuple(d * r for d, r in zip(x.shape, repeats, strict=True)), x.dtype),)


def _tile_compute(cb: ComputeBuilder, call: OpCall, ins: Ins, outs: Outs) -> None:
    x, repeats = only(ins), call.attrs["repeats"]

    def value(*i: Var) -> Expr:
        at = (
            v if r == 1 else v % e.of_dim(d)
            for v, r, d in zip(i, repeats, x.shape, strict=True)
        )  # fmt: skip
        return Load(x, tuple(at))

    cb.map(outs[0], value, "tile")


register(
    OpDef(
        "tile", "x repeated `repeats` times along each axis.",
        X, _tile_rule, lambda call, xs: [np.tile(present(xs)[0], sizes(call.attrs["repeats"]))],
        "movement", (Attr("repeats", "dims"),), variants={"direct": Variant(_tile_compute)},
    )
)  # fmt: skip


def _trilu_rule(call: OpCall) -> tuple[TensorType, ...]:
    infer.check_rank(call, 0, 2)
    return (call.type(0),)


def _trilu_reference(call: OpCall, xs: Arrays) -> list[Array]:
    (x,) = present(xs)
    k = max(-(1 << 31), min(1 << 31, call.attrs["k"]))
    return [np.triu(x, k) if call.attrs["upper"] else np.tril(x, k)]


def _trilu_compute(cb: ComputeBuilder, call: OpCall, ins: Ins, outs: Outs) -> None:
    x, test = only(ins), "ge" if call.attrs["upper"] else "le"

    def value(*i: Var) -> Expr:
        kept = e.binary(test, i[-1], i[-2] + call.attrs["k"])
        return e.select(kept, Load(x, i), e.const(0, x.dtype))

    cb.map(outs[0], value, "trilu")


register(
    OpDef(
        "trilu", "The upper or lower triangle of each matrix, from diagonal `k` on; 0 elsewhere.",
        X, _trilu_rule, _trilu_reference, "movement",
        (Attr("k", "int", 0), Attr("upper", "bool", True)),
        variants={"direct": Variant(_trilu_compute)},
    )
)  # fmt: skip
